"""A run's privacy in words: what the epsilon means, and what would bring it down."""

from fed_gswgan.privacy.calibration import Remedies

PROTECTIVE_EPSILON = 10.0


def privacy_statement(
    epsilon: float, delta: float, relation: str, unit: str, participations: int, found: Remedies
) -> list[str]:
    """Return sentences for the end of a run, without marketing.

    Args:
        epsilon: of the user with most releases.
        delta: of that epsilon.
        relation: neighbouring relation.
        unit: who a user is.
        participations: releases of that user.
        found: what would bring epsilon to its target.
    """
    lines = [
        f"epsilon = {epsilon:.4g} at delta = {delta:g} ({relation}; the user is {unit}; the server "
        f"is not trusted), after {participations} participations.",
    ]
    if epsilon <= found.epsilon:
        return lines
    if epsilon > PROTECTIVE_EPSILON:
        lines.append("An epsilon this large protects nobody.")
    participation_text = (
        f"at most {found.participations} participations of a user"
        if found.participations
        else "no single participation at this noise: a reply alone costs more"
    )
    lines.append(f"To bring it to {found.epsilon:g}, any one of these, all else unchanged:")
    lines.append(f"  fewer participations: {participation_text}")
    lines.append(
        f"    ({found.participations_message_clipping} with clipping = message, which bounds a "
        "reply as a whole and so weakens its signal)"
    )
    lines.append(f"  more noise: noise-stddev {found.noise_stddev:.4g}")
    if found.participations:
        lines.append(
            f"  more users to share the rounds: {found.population_factor:.4g} times as many"
        )
    elif found.participations_message_clipping:
        factor = participations / found.participations_message_clipping
        lines.append(
            f"  more users to share the rounds: {max(factor, 1):.4g} times as many, with "
            "clipping = message"
        )
    lines.append(
        f"  secure aggregation: {found.honest} honest survivors, at this noise each, in every sum"
    )
    return lines
