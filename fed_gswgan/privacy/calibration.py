"""What would bring a run's epsilon to a target: each knob by itself, all else as it was."""

import math
from dataclasses import dataclass, replace

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.privacy.neighboring import NeighboringRelation


@dataclass(frozen=True, kw_only=True)
class Remedies:
    """Settings that reach ``epsilon``, one at a time.

    Attributes:
        epsilon: the target.
        participations: how often a user may answer at most; 0 where a single reply costs more.
        participations_message_clipping: the same with ``clipping = message``.
        noise_stddev: noise, in units of C, at the same participations.
        honest: honest survivors in every sum under secure aggregation.
    """

    epsilon: float
    participations: int
    participations_message_clipping: int
    noise_stddev: float
    honest: int


def remedies(
    event: SanitizedGradientEvent,
    spent_mu: float,
    relation: NeighboringRelation,
    delta: float,
    epsilon: float,
) -> Remedies:
    """Return what would bring a user who spent ``spent_mu`` on such replies to ``epsilon``.

    Every formula inverts mu = sqrt(participations) x sensitivity / (noise_stddev sqrt(honest)).
    """
    target_mu = gaussian_mu(epsilon, delta)
    message = replace(event, clipping="message")
    return Remedies(
        epsilon=epsilon,
        participations=affordable_participations(event, relation, target_mu),
        participations_message_clipping=affordable_participations(message, relation, target_mu),
        noise_stddev=event.noise_stddev * spent_mu / target_mu,
        honest=max(1, math.ceil((spent_mu / target_mu) ** 2)),
    )


def affordable_participations(
    event: SanitizedGradientEvent, relation: NeighboringRelation, target_mu: float
) -> int:
    """Return the largest number of such replies whose mu stays within ``target_mu``."""
    return math.floor((target_mu / event.mu(relation)) ** 2)
