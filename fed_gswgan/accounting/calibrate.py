"""Noise, and number of releases, that meet a target epsilon."""

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
from fed_gswgan.privacy.gaussian import gaussian_mu
from fed_gswgan.privacy.mechanism import NOISE_STDDEVS, Event, NeighboringRelation
from fed_gswgan.validation import between, positive

COARSE = 0.02  # relative, of the epsilons that only tell where to look
CLOSE = 2e-4  # relative, of the noise that is found
LARGEST_ROUNDS = 10**6


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
    event: Event,
    spent_mu: float,
    relation: NeighboringRelation,
    delta: float,
    epsilon: float,
) -> Remedies:
    """Return what would bring a user who spent ``spent_mu`` on such replies to ``epsilon``.

    Every formula inverts mu = sqrt(participations) x sensitivity / (noise_stddev sqrt(honest)).
    """
    target = gaussian_mu(epsilon, delta)
    message = replace(event, bounded="message")
    return Remedies(
        epsilon=epsilon,
        participations=math.floor((target / event.mu(relation)) ** 2),
        participations_message_clipping=math.floor((target / message.mu(relation)) ** 2),
        noise_stddev=event.noise_stddev * spent_mu / target,
        honest=max(1, math.ceil((spent_mu / target) ** 2)),
    )


def smallest_noise(event: Event, exposure: Exposure, delta: float, epsilon: float) -> float:
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
    counted = exposure.participations is not None
    count = f"participations={exposure.participations}" if counted else f"rounds={exposure.rounds}"
    target = f"epsilon={epsilon} at delta={delta} for samples={event.rows}, {count}"

    def excess(noise: float, tolerance: float = TOLERANCE) -> float:
        _require_allowed(noise, target)
        noisy = replace(event, noise_stddev=noise)
        return privacy_spent(noisy, exposure, delta, tolerance).epsilon - epsilon

    noise = event.sensitivity(exposure.relation) / gaussian_mu(epsilon, delta)  # for one release
    if exposure.participations is not None:
        noise *= math.sqrt(exposure.participations / (exposure.honest or 1))
        while excess(noise) > 0:
            noise *= 1 + 2**-50
        return noise
    coarse = _smallest(lambda noise: excess(noise, COARSE), noise, 2.0, COARSE, target)
    return _smallest(excess, coarse, 1 + COARSE, CLOSE, target)


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

    def excess(noise: float) -> float:
        return epsilon_of(releases_at(noise), delta) - epsilon

    return _smallest(excess, 1.0, 2.0, CLOSE, f"epsilon={epsilon} at delta={delta}")


def largest_count(event: Event, exposure: Exposure, delta: float, epsilon: float) -> int:
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

    def affordable(count: int, tolerance: float = TOLERANCE) -> bool:
        more = exposure.with_count(count)
        return privacy_spent(event, more, delta, tolerance).epsilon <= epsilon

    if exposure.participations is not None:
        target = gaussian_mu(epsilon, delta) / event.mu(exposure.relation)
        count = math.floor(target**2 * (exposure.honest or 1))
        return count if affordable(count) else count - 1  # the root was rounded
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


def _require_allowed(noise: float, target: str) -> None:
    """Require noise that an event can have; ``target`` says what it is for."""
    least, most = NOISE_STDDEVS
    if noise >= most:
        raise ValueError(
            f"{target} needs noise-stddev={noise:g} or more, and it must be below {most:g}: raise "
            "epsilon or delta, or lower the others"
        )
    if noise <= least:
        raise ValueError(
            f"{target} is met without noise: it needs noise-stddev={noise:g} or less, and it must "
            f"be above {least:g}"
        )


def _smallest(
    excess: Callable[[float], float], start: float, ratio: float, close: float, target: str
) -> float:
    """Return the smallest noise at which a falling function is at most 0, but for ``close``.

    Args:
        excess: the function.
        start: near the noise that is looked for.
        ratio: of the steps that enclose it.
        close: relative; the function is at most 0 at what is returned.
        target: what the noise is for, for the errors.

    Raises:
        ValueError: the noise is none that an event can have.
    """
    low = high = start
    while excess(high) > 0:
        low, high = high, high * ratio
        _require_allowed(high, target)
    while low == high or excess(low) <= 0:
        high, low = low, low / ratio
        _require_allowed(low, target)
    xtol = close / 4
    root = brentq(lambda log: excess(math.exp(log)), math.log(low), math.log(high), xtol=xtol)
    noise = math.exp(float(root))
    while excess(noise) > 0:
        noise *= 1 + close / 2
    return noise


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
