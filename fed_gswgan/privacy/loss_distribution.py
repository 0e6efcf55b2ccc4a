"""Epsilon of rounds with a secret selection, by privacy loss distributions."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fed_gswgan.privacy.composed_losses import TooManyPointsError, total_epsilon
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.sampled_gaussian import RoundLosses, SampledGaussian
from fed_gswgan.privacy.sampled_rounds import SampledRounds
from fed_gswgan.validation import between

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
