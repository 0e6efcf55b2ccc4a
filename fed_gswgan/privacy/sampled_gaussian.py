"""Privacy loss of one round of a sampled Gaussian mechanism, on a grid.

With P the Gaussian in which the user takes part, Q the one in which it does not, and q the
probability that it is selected, the mixture is qP + (1 - q)Q. The loss of the mixture against Q and
that of Q against the mixture are all that is needed: each pair's losses above 0 are one of these
two, and its losses below 0 mirror the other, e^-x as likely at -x as at x.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from fed_gswgan.privacy.gaussian import gaussian_log_delta

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
