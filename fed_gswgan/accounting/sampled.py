"""Epsilon of Gaussian releases about randomly selected users."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp, ndtri
from scipy.stats import binom

from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_log_delta
from fed_gswgan.validation import at_least, between, positive

# Of delta: what may be given to an infinite loss, over all rounds, to end the grid.
TRUNCATED_SHARE = 1e-7


def proper_probability(sampling_probability: float) -> None:
    """Require a probability above 0; 1 is every round."""
    if not 0 < sampling_probability <= 1:
        raise ValueError(f"sampling-probability={sampling_probability} must lie in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class RoundLosses:
    """Distribution of a round's privacy loss on the multiples of ``step``, never less than it is.

    Attributes:
        step: distance of two losses.
        lowest: index of the first mass: its loss is lowest x step.
        masses: probability of each loss.
        infinite: probability of an infinite loss.
    """

    step: float
    lowest: int
    masses: np.ndarray
    infinite: float


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """A round: a mu-Gaussian release about a user who is selected with some probability.

    Attributes:
        mu: sensitivity over noise.
        sampling_probability: q, in (0, 1]; at 1 it is the plain Gaussian.
    """

    mu: float
    sampling_probability: float

    @property
    def _log_absent(self) -> float:
        q = self.sampling_probability
        return math.log1p(-q) if q < 1 else -math.inf

    def largest_loss(self, rounds: int, delta: float) -> float:
        """Return the end of the grid: a larger loss in any round is as rare as is negligible."""
        q, mu, rare = self.sampling_probability, self.mu, TRUNCATED_SHARE * delta / rounds
        present = mu * -ndtri(min(rare / q, 0.5)) + mu**2 / 2
        absent = mu * -ndtri(min(rare, 0.5)) + mu**2 / 2
        mixture_against_absent = np.logaddexp(self._log_absent, math.log(q) + present)
        absent_against_mixture = -np.logaddexp(self._log_absent, math.log(q) - absent)
        return float(max(mixture_against_absent, absent_against_mixture))

    def mixture_against_absent(self, losses: np.ndarray) -> np.ndarray:
        """Return the delta of (qP + (1 - q)Q, Q) at each epsilon >= 0 of ``losses``.

        Source: amplification by subsampling, arXiv 1807.01647, theorem 2.
        """
        q = self.sampling_probability
        epsilons = losses + np.log1p((1 - q) / q * -np.expm1(-losses))
        return np.asarray(q * np.exp(gaussian_log_delta(self.mu, epsilons)))

    def absent_against_mixture(self, losses: np.ndarray) -> np.ndarray:
        """Return the delta of (Q, qP + (1 - q)Q) at each epsilon >= 0 of ``losses``."""
        q = self.sampling_probability
        within = losses < -self._log_absent  # no outcome's loss is larger
        losses = np.where(within, losses, 0.0)
        weight = q - (1 - q) * np.expm1(losses)
        epsilons = losses + np.log(q / weight)
        return np.where(within, weight * np.exp(gaussian_log_delta(self.mu, epsilons)), 0.0)

    def poisson_pairs(self, step: float, points: int) -> tuple[RoundLosses, RoundLosses]:
        """Return the losses of either world against the other under zero-out.

        Args:
            step: of the grid.
            points: losses above 0.
        """
        losses = step * np.arange(points + 1)
        mixture, absent = self.mixture_against_absent(losses), self.absent_against_mixture(losses)
        return _two_sided(mixture, absent, step), _two_sided(absent, mixture, step)

    def fixed_size_pair(self, step: float, points: int) -> RoundLosses:
        """Return the losses of the dominating pair of fixed-size selection under replace-one.

        Its loss is that of (qP + (1 - q)Q, Q) above 0, and that of (P, pP + (1 - p)Q) below, which
        is the mirror image.

        Source: dominating pairs of subsampled mechanisms, arXiv 2106.08567.
        """
        mixture = self.mixture_against_absent(step * np.arange(points + 1))
        return _two_sided(mixture, mixture, step)


def _two_sided(above: np.ndarray, mirrored: np.ndarray, step: float) -> RoundLosses:
    """Join the losses above 0 with the mirror image of others; what remains lies at 0.

    Args:
        above: deltas at 0, step, 2 step, ...
        mirrored: likewise, of the pair whose worlds are exchanged.
        step: of the grid.
    """
    upper, lower = _connect_the_dots(above, step), _connect_the_dots(mirrored, step)
    lower = lower * np.exp(-step * np.arange(1, len(lower) + 1))
    infinite = float(above[-1])
    rest = max(0.0, 1 - infinite - float(upper.sum()) - float(lower.sum()))
    masses = np.concatenate([lower[::-1], [rest], upper])
    return RoundLosses(step=step, lowest=-len(lower), masses=masses, infinite=infinite)


def _connect_the_dots(deltas: np.ndarray, step: float) -> np.ndarray:
    """Return the masses at step, 2 step, ... whose deltas at the grid are ``deltas``.

    Between two points delta is a straight line in e^epsilon, so never less than the true one.

    Source: Connect the Dots, arXiv 2207.04380, algorithm 1.
    """
    falls = np.maximum(-np.diff(deltas), 0.0) / -math.expm1(-step)
    masses = falls.copy()
    masses[:-1] -= falls[1:] * math.exp(-step)
    return np.maximum(masses, 0.0)


@dataclass(frozen=True, kw_only=True)
class SampledRounds:
    """Rounds of one kind.

    Attributes:
        mu: sensitivity over noise of one round's release.
        sampling_probability: of a user in a round, in (0, 1]; at 1 it takes part in every one.
        rounds: how many, each with a selection of its own.

    Raises:
        ValueError: a value out of its range.
    """

    mu: float
    sampling_probability: float
    rounds: int

    def __post_init__(self) -> None:
        positive(mu=self.mu)
        at_least(1, rounds=self.rounds)
        proper_probability(self.sampling_probability)

    def __str__(self) -> str:
        return (
            f"rounds={self.rounds} at sampling-probability={self.sampling_probability} with "
            f"mu={self.mu:g} a round"
        )

    @property
    def is_certain(self) -> bool:
        """Whether a user takes part in every round."""
        return self.sampling_probability == 1

    @property
    def once(self) -> SampledGaussian:
        """One of the rounds."""
        return SampledGaussian(mu=self.mu, sampling_probability=self.sampling_probability)


LARGEST_TRANSFORM = 2**24  # numbers; half a gigabyte of working memory
# Share of the tilted distribution that is to pass epsilon; a larger one would make more of rare
# large losses, and so widen the transform.
BEYOND = 1e-3
OUTSIDE = 1e-14  # share of it that may lie outside of the transform


class TooManyPointsError(ValueError):
    """The sum of the losses does not fit into memory on so fine a grid."""


def composed_epsilon(losses: RoundLosses, rounds: int, delta: float) -> float:
    """Return ``total_epsilon`` of ``rounds`` independent such losses."""
    return total_epsilon([(losses, rounds)], delta)


def total_epsilon(parts: Sequence[tuple[RoundLosses, int]], delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of independent losses that add up.

    The masses are multiplied by e^(order x loss) before they are convolved and divided by it
    after, with an order that moves the sum towards epsilon. So the rounding of the Fourier
    transform, about rounds x 1e-16, is small beside delta; without it, it would be added to it.

    Args:
        parts: the losses of a round and how many such rounds there are; all on one step.
        delta: in (0, 1).

    Raises:
        TooManyPointsError: more than ``LARGEST_TRANSFORM`` points.

    Source: convolution by Fourier transform, arXiv 1906.03049; tilting is Esscher's.
    """
    certain = sum(rounds * math.log1p(-losses.infinite) for losses, rounds in parts)
    finite_delta = delta + math.expm1(certain)
    moments = _TiltedSum(parts)
    # Tilted by the best order about one sum in a few passes epsilon, untilted one in 1 / delta.
    order = moments.best_order(finite_delta)
    order *= max(0.0, 1 - math.log(BEYOND) / math.log(finite_delta))
    low, high = moments.window(order)
    sums = moments.convolved(order, low, high)
    sum_losses = moments.step * np.arange(low, high + 1)
    scale = moments.log_mean(order)

    def log_delta(epsilon: float) -> float:
        first = int(np.searchsorted(sum_losses, epsilon, side="right"))
        beyond = sum_losses[first:] - epsilon
        total = float(sums[first:] @ (np.exp(-order * beyond) * -np.expm1(-beyond)))
        return scale - order * epsilon + math.log(max(total, sys.float_info.min))

    target = math.log(finite_delta)
    lowest = max(0.0, float(sum_losses[0]))
    if log_delta(lowest) <= target:
        return lowest
    return float(brentq(lambda epsilon: log_delta(epsilon) - target, lowest, sum_losses[-1]))


class _TiltedLosses:
    """The losses of a round, weighted by e^(order x loss)."""

    def __init__(self, losses: RoundLosses) -> None:
        kept = np.flatnonzero(losses.masses)
        self.lowest = losses.lowest + int(kept[0])
        with np.errstate(divide="ignore"):
            self._log_masses = np.log(losses.masses[kept[0] : kept[-1] + 1])
        self.losses = losses.step * (self.lowest + np.arange(len(self._log_masses)))

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x loss), over finite losses."""
        logs = self._log_masses + order * self.losses
        largest = float(logs.max())
        return largest + math.log(float(np.exp(logs - largest).sum()))

    def weights(self, order: float) -> np.ndarray:
        """Return the probabilities of the tilted losses."""
        return np.asarray(np.exp(self._log_masses + order * self.losses - self.log_mean(order)))

    def mean_and_variance(self, order: float) -> tuple[float, float]:
        """Return those of the tilted losses."""
        weights = self.weights(order)
        mean = float(weights @ self.losses)
        return mean, float(weights @ (self.losses - mean) ** 2)


class _TiltedSum:
    """The sum of all rounds' losses, weighted by e^(order x sum)."""

    def __init__(self, parts: Sequence[tuple[RoundLosses, int]]) -> None:
        self.step = parts[0][0].step
        self._parts = [(_TiltedLosses(losses), rounds) for losses, rounds in parts]

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x sum), over finite sums."""
        return sum(rounds * tilted.log_mean(order) for tilted, rounds in self._parts)

    def best_order(self, delta: float) -> float:
        """Return the order whose Rényi bound on epsilon is the smallest.

        Source: the conversion is that of arXiv 2004.00010, proposition 12.
        """

        def bound(log_order: float) -> float:
            order = math.exp(log_order)
            smaller = order * -math.log1p(1 / order) - math.log1p(order)
            return (self.log_mean(order) - math.log(delta) + smaller) / order

        scale = math.log(max(tilted.losses[-1] for tilted, _ in self._parts))
        found = minimize_scalar(
            bound, bounds=(-scale - 30, -scale + 20), method="bounded", options={"xatol": 1e-3}
        )
        return math.exp(float(found.x))

    def window(self, order: float) -> tuple[int, int]:
        """Return the indices between which all but ``OUTSIDE`` of the tilted sum lies.

        By Chernoff's bound, at the best of many orders around the Gaussian's.
        """
        spread = math.sqrt(
            sum(rounds * tilted.mean_and_variance(order)[1] for tilted, rounds in self._parts)
        )
        rarity = -math.log(OUTSIDE)
        gaussian = math.sqrt(2 * rarity) / max(spread, self.step)
        low = sum(rounds * float(tilted.losses[0]) for tilted, rounds in self._parts)
        high = sum(rounds * float(tilted.losses[-1]) for tilted, rounds in self._parts)
        here = self.log_mean(order)
        for shift in gaussian * np.geomspace(1e-4, 10, 40):
            up = self.log_mean(order + shift) - here + rarity
            down = self.log_mean(order - shift) - here + rarity
            low, high = max(low, -down / shift), min(high, up / shift)
        return math.floor(low / self.step), math.ceil(high / self.step)

    def convolved(self, order: float, low: int, high: int) -> np.ndarray:
        """Return the probabilities of the tilted sum at the indices low .. high.

        Raises:
            TooManyPointsError: too many of them.
        """
        length = max(high - low + 1, *(len(tilted.losses) for tilted, _ in self._parts))
        if length > LARGEST_TRANSFORM:
            raise TooManyPointsError(f"{length} points are more than {LARGEST_TRANSFORM}")
        length = fft.next_fast_len(length, real=True)
        spectrum, lowest = np.ones(1), 0
        for tilted, rounds in self._parts:
            spectrum = spectrum * fft.rfft(tilted.weights(order), length) ** rounds
            lowest += rounds * tilted.lowest
        sums = np.roll(fft.irfft(spectrum, length), -((low - lowest) % length))
        return np.asarray(np.maximum(sums[: high - low + 1], 0.0))  # what is below 0 is rounding


TOLERANCE = 3e-4
FEWEST_POINTS = 128
LINEAR_STEP = 0.05  # below it e^loss is nearly straight between two points of the grid
NEGLIGIBLE = 1e-6  # an epsilon; no smaller change matters


def poisson_epsilon(
    mu: float,
    sampling_probability: float,
    rounds: int,
    delta: float,
    tolerance: float = TOLERANCE,
) -> float:
    """Return epsilon under zero-out, each user being selected by its own coin in every round.

    Args:
        mu: sensitivity over noise of one round's release, under zero-out.
        sampling_probability: of a user in a round, in (0, 1].
        rounds: how many, each with fresh coins.
        delta: in (0, 1).
        tolerance: relative; the grid is refined until epsilon changes by less.

    Returns:
        Never less than the truth but for rounding: every grid is pessimistic. More than it by
        about ``tolerance``, or ``NEGLIGIBLE``, at most.

    Raises:
        ValueError: a value out of its range, or more work than can be done.
    """

    return composed_poisson_epsilon(
        [SampledRounds(mu=mu, sampling_probability=sampling_probability, rounds=rounds)],
        delta,
        tolerance,
    )


def fixed_size_epsilon(
    mu: float,
    sampling_probability: float,
    rounds: int,
    delta: float,
    tolerance: float = TOLERANCE,
) -> float:
    """Return epsilon under replace-one, a fixed number of users being drawn in every round.

    Args:
        mu: sensitivity over noise of one round's release, under replace-one.
        sampling_probability: cohort over population, in (0, 1].
        rounds: how many, each drawn afresh.
        delta: in (0, 1).
        tolerance: relative; the grid is refined until epsilon changes by less.

    Returns:
        Never less than the truth but for rounding: every grid is pessimistic. More than the
        composition of the dominating pair by about ``tolerance``, or ``NEGLIGIBLE``, at most.

    Raises:
        ValueError: a value out of its range, or more work than can be done.
    """

    return composed_fixed_size_epsilon(
        [SampledRounds(mu=mu, sampling_probability=sampling_probability, rounds=rounds)],
        delta,
        tolerance,
    )


def composed_poisson_epsilon(
    parts: Sequence[SampledRounds], delta: float, tolerance: float = TOLERANCE
) -> float:
    """Return epsilon of unlike rounds together, all under zero-out, users drawn by coins.

    Args:
        parts: at least one.
        delta: in (0, 1).
        tolerance: as in ``poisson_epsilon``, whose promise and errors are the same.
    """

    def either_way(once: SampledGaussian, step: float, points: int) -> tuple[RoundLosses, ...]:
        return once.poisson_pairs(step, points)

    return _refined(either_way, parts, delta, tolerance)


def composed_fixed_size_epsilon(
    parts: Sequence[SampledRounds], delta: float, tolerance: float = TOLERANCE
) -> float:
    """Return epsilon of unlike rounds together, all under replace-one, users drawn in cohorts.

    Args:
        parts: at least one.
        delta: in (0, 1).
        tolerance: as in ``fixed_size_epsilon``, whose promise and errors are the same.
    """

    def dominating(once: SampledGaussian, step: float, points: int) -> tuple[RoundLosses, ...]:
        return (once.fixed_size_pair(step, points),)

    return _refined(dominating, parts, delta, tolerance)


def _refined(
    losses_of: Callable[[SampledGaussian, float, int], tuple[RoundLosses, ...]],
    parts: Sequence[SampledRounds],
    delta: float,
    tolerance: float,
) -> float:
    """Halve the step until epsilon stays as it is; the error falls with the step's square.

    Args:
        losses_of: a round's losses on a grid, for each pair of worlds that may be the worst.
        parts: all on the same grid, each as far as its own largest loss.
        delta: in (0, 1).
        tolerance: relative.
    """
    between(0, 1, delta=delta)
    certain = math.sqrt(sum(part.rounds * part.mu**2 for part in parts if part.is_certain))
    sampled = [part for part in parts if not part.is_certain]
    if not sampled:
        return gaussian_epsilon(certain, delta)
    # Gaussians without sampling are together one Gaussian.
    rounds = [(part.once, part.rounds) for part in sampled]
    if certain:
        rounds.append((SampledGaussian(mu=certain, sampling_probability=1.0), 1))
    distances = [
        count * float(once.mixture_against_absent(np.zeros(1))[0]) for once, count in rounds
    ]
    if sum(distances) <= delta:
        return 0.0  # total variation distances add up at most
    reaches = [once.largest_loss(count, delta) for once, count in rounds]
    points, before = FEWEST_POINTS, math.inf
    try:
        while True:
            step = max(reaches) / points
            pairs = [
                [(losses, count) for losses in losses_of(once, step, math.ceil(reach / step))]
                for (once, count), reach in zip(rounds, reaches, strict=True)
            ]
            epsilon = max(total_epsilon(worlds, delta) for worlds in zip(*pairs, strict=True))
            unchanged = before - epsilon <= max(tolerance * epsilon, NEGLIGIBLE)
            if unchanged and step <= max(tolerance * epsilon, LINEAR_STEP):
                return epsilon
            points, before = 2 * points, epsilon
    except TooManyPointsError as error:
        together = " and ".join(str(part) for part in sampled)
        raise ValueError(
            f"{together} need too fine a grid to add up their losses: use sampling=revealed"
        ) from error


# Of delta: probability of the counts that are left out, and counted as certain loss.
RARE_SHARE = 1e-9
LARGEST_ROUNDS = 10**9


def revealed_epsilon(mu: float, sampling_probability: float, rounds: int, delta: float) -> float:
    """Return epsilon of a user selected at random in each round, its selections being revealed.

    The number of rounds is binomial and independent of the data; given it, the releases are one
    Gaussian. So delta is the mean of the exact Gaussian deltas. No amplification is claimed, hence
    critics may keep any state, under either relation.

    Args:
        mu: sensitivity over noise of one round's release.
        sampling_probability: of a user in a round, in (0, 1].
        rounds: at most 10^9.
        delta: in (0, 1).

    Raises:
        ValueError: a value out of its range.
    """
    positive(mu=mu)
    at_least(1, rounds=rounds)
    between(0, 1, delta=delta)
    proper_probability(sampling_probability)
    if rounds > LARGEST_ROUNDS:
        raise ValueError(f"rounds={rounds} must be at most {LARGEST_ROUNDS}")
    if sampling_probability == 1:
        return gaussian_epsilon(mu * math.sqrt(rounds), delta)
    least, most = _likely_counts(sampling_probability, rounds, RARE_SHARE * delta)
    counts = np.arange(max(least, 1), max(most, 1) + 1)
    log_weights = binom.logpmf(counts, rounds, sampling_probability)
    mus = mu * np.sqrt(counts)
    log_target = math.log(delta * (1 - 2 * RARE_SHARE))

    def excess(epsilon: float) -> float:
        return float(logsumexp(log_weights + gaussian_log_delta(mus, epsilon))) - log_target

    if excess(0.0) <= 0:
        return 0.0
    high = gaussian_epsilon(float(mus[-1]), delta / 2)
    return float(brentq(excess, 0.0, high, rtol=1e-12))


def _likely_counts(probability: float, rounds: int, rare: float) -> tuple[int, int]:
    """Return counts below and above which there is at most ``rare`` probability each.

    Source: Bernstein's inequality.
    """
    mean, rarity = rounds * probability, -math.log(rare)
    reach = rarity / 3 + math.sqrt(rarity**2 / 9 + 2 * mean * (1 - probability) * rarity)
    return max(0, math.floor(mean - reach)), min(rounds, math.ceil(mean + reach))
