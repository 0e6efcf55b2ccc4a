"""Noise and number of releases from a target epsilon."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy.optimize import brentq

from fed_gswgan.accounting.sampled import TOLERANCE
from fed_gswgan.accounting.trust import (
    DeclaredRelease,
    Exposure,
    TrustModel,
    epsilon_of,
    privacy_spent,
)
from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.validation import between, positive


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


COARSE = 0.02  # relative, of the epsilons that only tell where to look
CLOSE = 2e-4  # relative, of the noise that is found under central trust
LARGEST_ROUNDS = 10**6


def smallest_noise(
    event: SanitizedGradientEvent, exposure: Exposure, delta: float, epsilon: float
) -> float:
    """Return noise, in units of C, whose epsilon does not pass ``epsilon``.

    In closed form under local and secure-aggregation trust; within ``CLOSE`` of the smallest under
    central.

    Args:
        event: its own noise plays no part.
        exposure: trust model, relation and counts.
        delta: in (0, 1).
        epsilon: the target.

    Raises:
        ValueError: nothing is released, no published formula is inverted, or the noise found lies
            outside of what an event allows.
    """
    _check(exposure, epsilon)
    if exposure.participations == 0 or _hardly_selected(exposure, delta):
        raise ValueError(
            f"delta={delta} is met without noise: the user is selected with less probability than "
            "that; participations, or rounds x sampling-probability, must be larger"
        )

    def epsilon_at(noise: float, tolerance: float = TOLERANCE) -> float:
        noisy = replace(event, noise_stddev=noise)
        return privacy_spent(noisy, exposure, delta, tolerance).epsilon

    mu = gaussian_mu(epsilon, delta)
    single = event.sensitivity(exposure.relation) / mu  # enough for one release
    if exposure.participations is not None:
        noise = single * math.sqrt(exposure.participations / (exposure.honest or 1))
        while epsilon_at(noise) > epsilon:
            noise *= 1 + 2**-50
        return noise
    coarse = _crossing(lambda noise: epsilon_at(noise, COARSE) - epsilon, single, 2.0, COARSE)
    noise = _crossing(lambda noise: epsilon_at(noise) - epsilon, coarse, 1 + COARSE, CLOSE / 4)
    while epsilon_at(noise) > epsilon:
        noise *= 1 + CLOSE / 2
    return noise


def largest_count(
    event: SanitizedGradientEvent, exposure: Exposure, delta: float, epsilon: float
) -> int:
    """Return how many participations, or under central trust rounds, ``epsilon`` affords.

    Args:
        event: one release.
        exposure: its own participations or rounds play no part.
        delta: in (0, 1).
        epsilon: the target.

    Returns:
        The largest number, 0 where one release costs more. Under central trust at most
        ``LARGEST_ROUNDS``, and from thousands on within a thousandth of the largest.

    Raises:
        ValueError: no published formula is inverted, or an epsilon that cannot be computed.
    """
    _check(exposure, epsilon)
    if exposure.participations is not None:
        target = gaussian_mu(epsilon, delta) * math.sqrt(exposure.honest or 1)
        count = affordable_participations(event, exposure.relation, target)
        exact = privacy_spent(event, exposure.with_count(count), delta)
        return count if exact.epsilon <= epsilon else count - 1  # the root was rounded

    def affordable(rounds: int, tolerance: float = TOLERANCE) -> bool:
        longer = exposure.with_count(rounds)
        return privacy_spent(event, longer, delta, tolerance).epsilon <= epsilon

    high = 1
    while high < LARGEST_ROUNDS and affordable(high, COARSE):
        high = min(2 * high, LARGEST_ROUNDS)
    low = _last(lambda rounds: affordable(rounds, COARSE), high // 2, high, COARSE)
    high, reach = low, 1 + int(COARSE * low)
    while high < LARGEST_ROUNDS and affordable(high := min(low + reach, LARGEST_ROUNDS)):
        low, reach = high, 2 * reach
    return _last(affordable, low, high, 1e-3)


def _check(exposure: Exposure, epsilon: float) -> None:
    positive(epsilon=epsilon)
    if exposure.trust is TrustModel.PAPER:
        raise ValueError("trust=paper is no guarantee to calibrate; use trust=central")


def _hardly_selected(exposure: Exposure, delta: float) -> bool:
    """Whether the probability to be selected at all is at most ``delta``."""
    rounds, probability = exposure.rounds, exposure.sampling_probability
    if rounds is None or probability is None or probability == 1:
        return False
    return -math.expm1(rounds * math.log1p(-probability)) <= delta


def _crossing(
    excess: Callable[[float], float], start: float, ratio: float, tolerance: float
) -> float:
    """Return where a falling function of a number above 0 crosses 0, within ``tolerance``.

    Args:
        excess: the function.
        start: near the crossing.
        ratio: of the steps that enclose it.
        tolerance: relative.
    """
    low = high = start
    if excess(start) > 0:
        while excess(high := high * ratio) > 0:
            low = high
    else:
        while excess(low := low / ratio) <= 0:
            high = low
    root = brentq(lambda log: excess(math.exp(log)), math.log(low), math.log(high), xtol=tolerance)
    return math.exp(float(root))


def _last(holds: Callable[[int], bool], low: int, high: int, tolerance: float) -> int:
    """Return the last number at which ``holds``, which does at ``low`` and not at ``high``.

    Args:
        holds: a condition that fails from some number on.
        low: the condition holds there, or it is 0.
        high: a number above it.
        tolerance: relative; a whole number is exact while it allows less than 1.
    """
    while high - low > max(1, tolerance * low):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


CLOSE_ENOUGH = 5e-4  # relative, of the noise
RATIO = 2.0  # of the noises that are tried until two enclose the target
LARGEST_NOISE = 2.0**40


def noise_for(
    releases_at: Callable[[float], tuple[DeclaredRelease, ...]], epsilon: float, delta: float
) -> float:
    """Return the smallest noise multiplier that keeps ``epsilon``, and never a smaller one.

    Args:
        releases_at: what is declared at a noise multiplier; more noise must not cost more.
        epsilon: the target, above 0.
        delta: in (0, 1).

    Returns:
        Within a thousandth of the smallest.

    Raises:
        ValueError: epsilon or delta out of range, or a target that no noise meets or that needs
            none.
    """
    positive(epsilon=epsilon)
    between(0, 1, delta=delta)

    def excess(log_noise: float) -> float:
        return epsilon_of(releases_at(math.exp(log_noise)), delta) - epsilon

    low, high = _enclosing(excess, epsilon)
    noise = math.exp(float(brentq(excess, low, high, xtol=CLOSE_ENOUGH / 4)))
    while excess(math.log(noise)) > 0:
        noise *= 1 + CLOSE_ENOUGH / 2
    return noise


def _enclosing(excess: Callable[[float], float], epsilon: float) -> tuple[float, float]:
    """Return logarithms of two noises, too little and enough."""
    step, end = math.log(RATIO), math.log(LARGEST_NOISE)
    low = high = 0.0
    while excess(high) > 0:
        low, high = high, high + step
        if high > end:
            raise ValueError(f"epsilon={epsilon} is met by no noise up to {LARGEST_NOISE:g}")
    while low == high or excess(low) <= 0:
        high, low = low, low - step
        if low < -end:
            raise ValueError(f"epsilon={epsilon} is met without noise, so none is the smallest")
    return low, high
