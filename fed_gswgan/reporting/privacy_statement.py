"""A run's privacy in words: what the epsilon means, and what would bring it down."""

import math

from fed_gswgan.accounting.calibrate import Remedies

PROTECTIVE_EPSILON = 10.0


def privacy_statement(
    epsilon: float,
    delta: float,
    relation: str,
    unit: str,
    users: int,
    participations: int,
    seeded: bool,
    server_trusted: bool,
    amplified: float | None,
    why_not_amplified: str,
    log10_added_delta: float,
    found: Remedies,
) -> list[str]:
    """Return sentences for the end of a run, without marketing.

    Args:
        epsilon: of the user with most releases.
        delta: of that epsilon.
        relation: neighbouring relation.
        unit: who a user is.
        users: how many there are.
        participations: releases of that user.
        seeded: whether the noise came from a seed.
        server_trusted: whether it is the server that adds the noise.
        amplified: under central trust epsilon while the selection of users stays secret; None:
            there is none.
        why_not_amplified: then why.
        log10_added_delta: what finite arithmetic adds to delta; -inf before any release.
        found: what would bring epsilon to its target.
    """
    trusted = "is trusted to add the noise" if server_trusted else "is not trusted"
    lines = [
        f"epsilon = {epsilon:.4g} at delta = {delta:g} ({relation}; the user is {unit}; the server "
        f"{trusted}), after {participations} participations; "
        f"{_of_finite_arithmetic(log10_added_delta)}."
    ]
    if server_trusted:
        lines += [
            f"While nobody else knows the run's seed and who was asked, epsilon = {amplified:.4g}."
            if amplified is not None
            else f"A secret selection lowers epsilon no further: {why_not_amplified}.",
            "Against the server itself epsilon is infinite: it sees every update.",
        ]
    if seeded:
        lines.append(
            "The noise came from a seed, so this run protects nobody; the epsilon is that of the "
            "same run with secure noise."
        )
    if delta >= 1 / users:
        lines.append(f"delta should be well below 1/{users}, one over the number of users.")
    if epsilon > PROTECTIVE_EPSILON:
        lines.append("An epsilon this large protects nobody, whatever the noise.")
    if epsilon <= found.epsilon:
        return lines
    return lines + _remedies(participations, server_trusted, found)


def _remedies(participations: int, server_trusted: bool, found: Remedies) -> list[str]:
    """Return each way to the target by itself, with its number."""
    lines = [f"What would bring it to {found.epsilon:g}, each by itself:"]
    if found.participations:
        lines.append(f"  fewer participations: at most {found.participations} a user")
        factor = participations / found.participations
        lines.append(f"  more users to share the rounds: {_up(factor)} times as many")
    else:
        lines.append("  fewer participations: not enough, a single reply at this noise costs more")
    if (count := found.participations_message_clipping) > 0 and not server_trusted:
        lines.append(
            "  clipping = message, which bounds a reply as a whole and weakens its signal, and "
            + (
                f"{_up(participations / count)} times as many users to share the rounds "
                f"({count} participations a user)"
                if count < participations
                else "nothing else"
            )
        )
    lines.append(f"  more noise: noise-stddev {_up(found.noise_stddev)}")
    if not server_trusted:
        lines.append(
            f"  secure aggregation: {found.honest} honest survivors, at this noise each, in every "
            "sum"
        )
    return lines


def _of_finite_arithmetic(exponent: float) -> str:
    if exponent >= 0:
        return "at an epsilon this large finite arithmetic leaves no delta below 1"
    added = "nothing" if exponent == -math.inf else f"10^{math.ceil(exponent)}"
    return f"finite arithmetic adds {added} to delta"


def _up(value: float) -> str:
    """Write a number with two decimals, rounded up, so that the target is really met."""
    return f"{math.ceil(value * 100) / 100:g}"
