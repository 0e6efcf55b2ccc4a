"""A run's privacy in words: what the epsilon means, and what would bring it down."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from fed_gswgan.accounting.calibrate import Remedies
from fed_gswgan.accounting.report import said_of_finite_arithmetic

PROTECTIVE_EPSILON = 10.0


def privacy_statement(
    privacy: Mapping[str, Any], users: int, cohort: int, why_not_amplified: str, found: Remedies
) -> list[str]:
    """Return sentences for the end of a run, without marketing.

    Args:
        privacy: that part of the summary, but for this statement.
        users: how many there are.
        cohort: clients of a round.
        why_not_amplified: under central trust, why there is no epsilon of a secret selection.
        found: what would bring epsilon to its target.
    """
    epsilon, delta, trust = privacy["epsilon_max"], privacy["delta"], privacy["trust_model"]
    exponent = privacy["delta_of_finite_arithmetic_log10"]
    lines = [
        f"epsilon = {epsilon:.4g} at delta = {delta:g} ({privacy['neighboring_relation']}; the "
        f"user is {privacy['unit']}), after {privacy['participations_max']} participations; "
        f"{said_of_finite_arithmetic(exponent, delta)}.",
        _best_guess(privacy["mu"], privacy["neighboring_relation"]),
        *_believed(privacy, cohort, why_not_amplified),
    ]
    if privacy["seeded_noise"]:
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
    return lines + _remedies(privacy["participations_max"], trust == "central", found)


def _best_guess(mu: float, relation: str) -> str:
    """Return what epsilon is as the chance of the best guess at even odds, rounded up.

    Source: Dong, Roth and Su, Gaussian Differential Privacy (arXiv 1905.02383): the best test of
    N(0, 1) against N(mu, 1) is right with probability Phi(mu / 2).
    """
    percent = math.ceil(1000 * NormalDist().cdf(mu / 2)) / 10
    guessed = (
        "which of two sets of images a user has"
        if relation == "replace-one"
        else "whether a user's images are there"
    )
    return (
        f"In words: who knows everybody else's images and guesses {guessed} is right in at most "
        f"{percent:g} % of cases if both are as likely beforehand, where a coin is in 50 %."
    )


def _believed(privacy: Mapping[str, Any], cohort: int, why_not_amplified: str) -> list[str]:
    """Return against whom the epsilon holds, and what must be believed for it."""
    match privacy["trust_model"]:
        case "central":
            amplified = privacy["epsilon_amplified"]
            return [
                "It holds against whoever sees the result; the server is trusted to add the noise.",
                f"While nobody else knows the run's seed and who was asked, epsilon = "
                f"{amplified:.4g}."
                if amplified is not None
                else f"A secret selection lowers epsilon no further: {why_not_amplified}.",
                "Against the server itself epsilon is infinite: it sees every update.",
            ]
        case "secure-aggregation":
            masked = privacy["secure_aggregation"] == "protocol"
            return [
                f"It holds against a server that sees only the sum over the {cohort} clients of a "
                f"round, of whom at least {privacy['honest']} are honest and stay to the end; "
                + (
                    "clients masked their releases, so that a server that cheats sees no more."
                    if masked
                    else "the simulation itself formed the sum (ideal form)."
                ),
                "If the server saw each client's release by itself, epsilon would be "
                f"{privacy['epsilon_alone']:.4g}.",
            ]
    return ["It holds against everybody, the server included: each device adds all of its noise."]


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


def _up(value: float) -> str:
    """Write a number with two decimals, rounded up, so that the target is really met."""
    return f"{math.ceil(value * 100) / 100:g}"
