"""Epsilon of Gaussian releases about randomly selected users, under central trust.

Let P be the output where the user takes part, Q the one where it does not, and q the probability
that it is selected: what is released is the mixture qP + (1 - q)Q. A secret selection is accounted
by the distribution of its privacy loss on a grid. The loss of the mixture against Q and that of Q
against the mixture are all that is needed: each pair's losses above 0 are one of these two, and its
losses below 0 mirror the other, e^-x as likely at -x as at x.

dp_accounting does the same for Poisson sampling, and tests compare the two. It is not used here:
it has no pair for samples of fixed size, and its version 0.6 adds the rounding of its Fourier
transform to delta, which is too much for delta < 1e-10 or a million rounds of small losses.
"""

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

TOLERANCE = 3e-4
NEGLIGIBLE = 1e-6  # an epsilon; no smaller change matters
FEWEST_POINTS = 128
LARGEST_TRANSFORM = 2**24  # numbers; half a gigabyte of working memory
LINEAR_STEP = 0.05  # below it e^loss is nearly straight between two points of the grid
# Of delta: what may be given to an infinite loss, over all rounds, to end the grid.
TRUNCATED_SHARE = 1e-7
# Share of the tilted distribution that is to pass epsilon; a larger one would make more of rare
# large losses, and so widen the transform.
BEYOND = 1e-3
OUTSIDE = 1e-14  # share of it that may lie outside of the transform
# Of delta: probability of the numbers of selections that are counted as certain loss.
RARE_SHARE = 1e-9
LARGEST_ROUNDS = 10**9  # of a revealed selection


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
    def _log_absent(self) -> float:
        q = self.sampling_probability
        return math.log1p(-q) if q < 1 else -math.inf

    def largest_loss(self, delta: float) -> float:
        """Return the end of the grid: a larger loss in any round is as rare as is negligible."""
        q, mu, rare = self.sampling_probability, self.mu, TRUNCATED_SHARE * delta / self.rounds
        present = mu * -ndtri(min(rare / q, 0.5)) + mu**2 / 2
        absent = mu * -ndtri(min(rare, 0.5)) + mu**2 / 2
        mixture_against_absent = np.logaddexp(self._log_absent, math.log(q) + present)
        absent_against_mixture = -np.logaddexp(self._log_absent, math.log(q) - absent)
        return float(max(mixture_against_absent, absent_against_mixture))

    def mixture_against_absent(self, losses: np.ndarray) -> np.ndarray:
        """Return a round's delta of (qP + (1 - q)Q, Q) at each epsilon >= 0 of ``losses``.

        Source: amplification by subsampling, arXiv 1807.01647, theorem 2.
        """
        q = self.sampling_probability
        epsilons = losses + np.log1p((1 - q) / q * -np.expm1(-losses))
        return np.asarray(q * np.exp(gaussian_log_delta(self.mu, epsilons)))

    def absent_against_mixture(self, losses: np.ndarray) -> np.ndarray:
        """Return a round's delta of (Q, qP + (1 - q)Q) at each epsilon >= 0 of ``losses``."""
        within = losses < -self._log_absent  # no outcome's loss is larger
        losses = np.where(within, losses, 0.0)
        weight = -np.expm1(losses + self._log_absent)  # 1 - (1 - q) e^loss
        epsilons = losses + np.log(self.sampling_probability / weight)
        return np.where(within, weight * np.exp(gaussian_log_delta(self.mu, epsilons)), 0.0)


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


def poisson_epsilon(
    parts: Sequence[SampledRounds], delta: float, tolerance: float = TOLERANCE
) -> float:
    """Return epsilon under zero-out, each user being selected by its own secret coin in a round.

    Args:
        parts: kinds of rounds that add up, at least one; mu of each is under zero-out.
        delta: in (0, 1).
        tolerance: relative; the grid is refined until epsilon changes by less.

    Returns:
        Never less than the truth but for rounding: every grid is pessimistic. More than it by
        about ``tolerance``, or ``NEGLIGIBLE``, at most.

    Raises:
        ValueError: delta out of its range, or more work than can be done.
    """

    def either_way(part: SampledRounds, step: float, points: int) -> tuple[RoundLosses, ...]:
        losses = step * np.arange(points + 1)
        mixture, absent = part.mixture_against_absent(losses), part.absent_against_mixture(losses)
        return two_sided(mixture, absent, step), two_sided(absent, mixture, step)

    return _refined(either_way, parts, delta, tolerance)


def fixed_size_epsilon(
    parts: Sequence[SampledRounds], delta: float, tolerance: float = TOLERANCE
) -> float:
    """Return epsilon under replace-one, a secret cohort of fixed size being drawn in a round.

    The loss of the dominating pair is that of (qP + (1 - q)Q, Q) above 0, and that of
    (P, pP + (1 - p)Q) below, which is the mirror image.

    Args:
        parts: kinds of rounds that add up, at least one; mu of each is under replace-one, its
            sampling probability is cohort over population.
        delta: as in ``poisson_epsilon``, whose promise and errors are the same.
        tolerance: likewise.

    Source: dominating pairs of subsampled mechanisms, arXiv 2106.08567.
    """

    def dominating(part: SampledRounds, step: float, points: int) -> tuple[RoundLosses, ...]:
        mixture = part.mixture_against_absent(step * np.arange(points + 1))
        return (two_sided(mixture, mixture, step),)

    return _refined(dominating, parts, delta, tolerance)


def revealed_epsilon(part: SampledRounds, delta: float) -> float:
    """Return epsilon of a user selected at random in each round, its selections being revealed.

    The number of selections is binomial and independent of the data; given it, the releases are one
    Gaussian. So delta is the mean of the exact Gaussian deltas. No amplification is claimed, hence
    critics may keep any state, under either relation.

    Args:
        part: at most 10^9 rounds.
        delta: in (0, 1).

    Raises:
        ValueError: a value out of its range.
    """
    between(0, 1, delta=delta)
    mu, probability, rounds = part.mu, part.sampling_probability, part.rounds
    if rounds > LARGEST_ROUNDS:
        raise ValueError(f"rounds={rounds} must be at most {LARGEST_ROUNDS}")
    if probability == 1:
        return gaussian_epsilon(mu * math.sqrt(rounds), delta)
    # By Bernstein's inequality, fewer and more selections are as rare as is negligible.
    mean, rarity = rounds * probability, -math.log(RARE_SHARE * delta)
    reach = rarity / 3 + math.sqrt(rarity**2 / 9 + 2 * mean * (1 - probability) * rarity)
    least, most = max(1, math.floor(mean - reach)), min(rounds, math.ceil(mean + reach))
    counts = np.arange(least, max(most, 1) + 1)
    log_weights = binom.logpmf(counts, rounds, probability)
    mus = mu * np.sqrt(counts)
    log_target = math.log(delta * (1 - 2 * RARE_SHARE))

    def excess(epsilon: float) -> float:
        return float(logsumexp(log_weights + gaussian_log_delta(mus, epsilon))) - log_target

    if excess(0.0) <= 0:
        return 0.0
    high = gaussian_epsilon(float(mus[-1]), delta / 2)
    return float(brentq(excess, 0.0, high, rtol=1e-12))


def _refined(
    losses_of: Callable[[SampledRounds, float, int], tuple[RoundLosses, ...]],
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
    # Gaussians without sampling are together one Gaussian.
    certain = math.sqrt(sum(p.rounds * p.mu**2 for p in parts if p.sampling_probability == 1))
    sampled = [part for part in parts if part.sampling_probability < 1]
    if not sampled:
        return gaussian_epsilon(certain, delta)
    kinds = list(sampled)
    if certain:
        kinds.append(SampledRounds(mu=certain, sampling_probability=1.0, rounds=1))
    if sum(p.rounds * float(p.mixture_against_absent(np.zeros(1))[0]) for p in kinds) <= delta:
        return 0.0  # total variation distances add up at most
    reaches = [part.largest_loss(delta) for part in kinds]
    points, before = FEWEST_POINTS, math.inf
    try:
        while True:
            step = max(reaches) / points
            pairs = [
                [(losses, part.rounds) for losses in losses_of(part, step, math.ceil(reach / step))]
                for part, reach in zip(kinds, reaches, strict=True)
            ]
            epsilon = max(total_epsilon(worlds, delta) for worlds in zip(*pairs, strict=True))
            unchanged = before - epsilon <= max(tolerance * epsilon, NEGLIGIBLE)
            if unchanged and step <= max(tolerance * epsilon, LINEAR_STEP):
                return epsilon
            points, before = 2 * points, epsilon
    except MemoryError as error:
        raise ValueError(
            f"{' and '.join(map(str, sampled))} need too fine a grid to add up their losses "
            f"({error}): use sampling=revealed"
        ) from error


def two_sided(above: np.ndarray, mirrored: np.ndarray, step: float) -> RoundLosses:
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


def total_epsilon(parts: Sequence[tuple[RoundLosses, int]], delta: float) -> float:
    """Return the smallest epsilon >= 0 at ``delta`` of independent losses that add up.

    The masses are multiplied by e^(order x loss) before they are convolved and divided by it
    after, with an order that moves the sum towards epsilon. So the rounding of the Fourier
    transform, about rounds x 1e-16, is small beside delta; without it, it would be added to it.

    Args:
        parts: the losses of a round and how many such rounds there are; all on one step.
        delta: in (0, 1).

    Raises:
        MemoryError: more than ``LARGEST_TRANSFORM`` points.

    Source: convolution by Fourier transform, arXiv 1906.03049; tilting is Esscher's.
    """
    certain = sum(rounds * math.log1p(-losses.infinite) for losses, rounds in parts)
    finite_delta = delta + math.expm1(certain)
    total = _TiltedSum(parts)
    # Tilted by the best order about one sum in a few passes epsilon, untilted one in 1 / delta.
    order = total.best_order(finite_delta)
    order *= max(0.0, 1 - math.log(BEYOND) / math.log(finite_delta))
    low, high = total.window(order)
    sums = total.convolved(order, low, high)
    sum_losses = total.step * np.arange(low, high + 1)
    scale = total.log_mean(order)

    def log_delta(epsilon: float) -> float:
        first = int(np.searchsorted(sum_losses, epsilon, side="right"))
        beyond = sum_losses[first:] - epsilon
        mass = float(sums[first:] @ (np.exp(-order * beyond) * -np.expm1(-beyond)))
        return scale - order * epsilon + math.log(max(mass, sys.float_info.min))

    target = math.log(finite_delta)
    lowest = max(0.0, float(sum_losses[0]))
    if log_delta(lowest) <= target:
        return lowest
    return float(brentq(lambda epsilon: log_delta(epsilon) - target, lowest, sum_losses[-1]))


class _TiltedSum:
    """The sum of all rounds' losses, its probabilities weighted by e^(order x sum).

    Attributes:
        parts: of each kind of round: losses, logarithms of their masses, number of rounds.
    """

    def __init__(self, parts: Sequence[tuple[RoundLosses, int]]) -> None:
        self.step = parts[0][0].step
        self.parts: list[tuple[np.ndarray, np.ndarray, int]] = []
        for losses, rounds in parts:
            kept = np.flatnonzero(losses.masses)
            indices = np.arange(kept[0], kept[-1] + 1)
            with np.errstate(divide="ignore"):
                logs = np.log(losses.masses[indices])
            self.parts.append((self.step * (losses.lowest + indices), logs, rounds))

    def log_mean(self, order: float) -> float:
        """Return the log of the mean of e^(order x sum), over finite sums."""
        return sum(
            rounds * float(logsumexp(logs + order * losses)) for losses, logs, rounds in self.parts
        )

    def best_order(self, delta: float) -> float:
        """Return the order whose Rényi bound on epsilon is the smallest.

        Source: the conversion is that of arXiv 2004.00010, proposition 12.
        """

        def bound(log_order: float) -> float:
            order = math.exp(log_order)
            smaller = order * -math.log1p(1 / order) - math.log1p(order)
            return (self.log_mean(order) - math.log(delta) + smaller) / order

        scale = math.log(max(losses[-1] for losses, _, _ in self.parts))
        found = minimize_scalar(
            bound, bounds=(-scale - 30, -scale + 20), method="bounded", options={"xatol": 1e-3}
        )
        return math.exp(float(found.x))

    def window(self, order: float) -> tuple[int, int]:
        """Return the indices between which all but ``OUTSIDE`` of the tilted sum lies.

        By Chernoff's bound, at the best of many orders around the Gaussian's.
        """
        variance = 0.0
        for losses, logs, rounds in self.parts:
            weights = _tilted(losses, logs, order)
            variance += rounds * float(weights @ (losses - weights @ losses) ** 2)
        rarity = -math.log(OUTSIDE)
        gaussian = math.sqrt(2 * rarity) / max(math.sqrt(variance), self.step)
        low = sum(rounds * float(losses[0]) for losses, _, rounds in self.parts)
        high = sum(rounds * float(losses[-1]) for losses, _, rounds in self.parts)
        here = self.log_mean(order)
        for shift in gaussian * np.geomspace(1e-4, 10, 40):
            up = self.log_mean(order + shift) - here + rarity
            down = self.log_mean(order - shift) - here + rarity
            low, high = max(low, -down / shift), min(high, up / shift)
        return math.floor(low / self.step), math.ceil(high / self.step)

    def convolved(self, order: float, low: int, high: int) -> np.ndarray:
        """Return the probabilities of the tilted sum at the indices low .. high.

        Raises:
            MemoryError: too many of them.
        """
        length = max(high - low + 1, *(len(losses) for losses, _, _ in self.parts))
        if length > LARGEST_TRANSFORM:
            raise MemoryError(f"{length} points are more than {LARGEST_TRANSFORM}")
        length = fft.next_fast_len(length, real=True)
        spectrum, lowest = np.ones(1), 0
        for losses, logs, rounds in self.parts:
            spectrum = spectrum * fft.rfft(_tilted(losses, logs, order), length) ** rounds
            lowest += rounds * round(losses[0] / self.step)
        sums = np.roll(fft.irfft(spectrum, length), -((low - lowest) % length))
        return np.asarray(np.maximum(sums[: high - low + 1], 0.0))  # what is below 0 is rounding


def _tilted(losses: np.ndarray, log_masses: np.ndarray, order: float) -> np.ndarray:
    """Return the masses weighted by e^(order x loss), which then add up to 1."""
    logs = log_masses + order * losses
    return np.asarray(np.exp(logs - logsumexp(logs)))
