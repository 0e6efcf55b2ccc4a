"""Epsilon of rounds with a secret selection, by privacy loss distributions."""

import math
from collections.abc import Callable

import numpy as np

from fed_gswgan.privacy.composed_losses import TooManyPointsError, composed_epsilon
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.sampled_gaussian import SampledGaussian, proper_probability
from fed_gswgan.validation import at_least, between, positive

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

    def epsilon_at(step: float, points: int) -> float:
        pairs = SampledGaussian(mu=mu, sampling_probability=sampling_probability).poisson_pairs(
            step, points
        )
        return max(composed_epsilon(losses, rounds, delta) for losses in pairs)

    return _refined(epsilon_at, mu, sampling_probability, rounds, delta, tolerance)


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

    def epsilon_at(step: float, points: int) -> float:
        selected = SampledGaussian(mu=mu, sampling_probability=sampling_probability)
        return composed_epsilon(selected.fixed_size_pair(step, points), rounds, delta)

    return _refined(epsilon_at, mu, sampling_probability, rounds, delta, tolerance)


def _refined(
    epsilon_at: Callable[[float, int], float],
    mu: float,
    sampling_probability: float,
    rounds: int,
    delta: float,
    tolerance: float,
) -> float:
    """Halve the step until epsilon stays as it is; the error falls with the step's square."""
    positive(mu=mu)
    at_least(1, rounds=rounds)
    between(0, 1, delta=delta)
    proper_probability(sampling_probability)
    if sampling_probability == 1:
        return gaussian_epsilon(mu * math.sqrt(rounds), delta)
    once = SampledGaussian(mu=mu, sampling_probability=sampling_probability)
    if rounds * float(once.mixture_against_absent(np.zeros(1))[0]) <= delta:
        return 0.0  # total variation distances add up at most
    largest = once.largest_loss(rounds, delta)
    points, before = FEWEST_POINTS, math.inf
    try:
        while True:
            step = largest / points
            epsilon = epsilon_at(step, points)
            unchanged = before - epsilon <= max(tolerance * epsilon, NEGLIGIBLE)
            if unchanged and step <= max(tolerance * epsilon, LINEAR_STEP):
                return epsilon
            points, before = 2 * points, epsilon
    except TooManyPointsError as error:
        raise ValueError(
            f"rounds={rounds} at sampling-probability={sampling_probability} with mu={mu:g} a "
            "round need too fine a grid to add up their losses: use sampling=revealed"
        ) from error
