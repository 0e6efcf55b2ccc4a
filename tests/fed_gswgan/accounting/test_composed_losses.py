import math

import numpy as np
import pytest

from fed_gswgan.accounting import sampled
from fed_gswgan.accounting.sampled import (
    RoundLosses,
    TooManyPointsError,
    composed_epsilon,
    total_epsilon,
)

# Losses -0.5, 0, 0.5 and 1, and one time in a million infinity.
LOSSES = RoundLosses(
    step=0.5, lowest=-1, masses=np.array([0.3, 0.3, 0.2, 0.2 - 1e-6]), infinite=1e-6
)


def delta_by_hand(rounds, epsilon):
    masses = np.ones(1)
    for _ in range(rounds):
        masses = np.convolve(masses, LOSSES.masses)
    losses = 0.5 * (np.arange(len(masses)) - rounds)
    infinite = 1 - (1 - 1e-6) ** rounds
    return infinite + masses @ np.maximum(0, -np.expm1(epsilon - losses))


@pytest.mark.parametrize("rounds", [1, 2, 7, 40])
@pytest.mark.parametrize("delta", [1e-4, 1e-3, 0.02, 0.15])
def test_delta_at_epsilon_is_the_one_asked_for(rounds, delta):
    epsilon = composed_epsilon(LOSSES, rounds, delta)
    assert epsilon > 0
    assert delta_by_hand(rounds, epsilon) == pytest.approx(delta, rel=1e-8)


def test_epsilon_is_zero_where_delta_is_met_without():
    finite = 0.2 * (1 - math.exp(-0.5)) + (0.2 - 1e-6) * (1 - math.exp(-1))
    assert delta_by_hand(1, 0.0) == pytest.approx(finite + 1e-6, rel=1e-12)  # 0.2051
    assert composed_epsilon(LOSSES, 1, 0.21) == 0.0
    assert composed_epsilon(LOSSES, 1, 0.20) > 0.0


def test_rounding_is_relative_to_delta():
    # Two losses of +-0.01 add up to a binomial, whose far tail can be summed directly.
    rounds, delta = 10**5, 1e-30
    up = math.exp(0.01) / (1 + math.exp(0.01))
    losses = RoundLosses(step=0.01, lowest=-1, masses=np.array([1 - up, 0, up]), infinite=0.0)
    epsilon = composed_epsilon(losses, rounds, delta)
    ups = np.arange(rounds + 1)
    logs = np.array([math.lgamma(rounds + 1) - math.lgamma(k + 1) - math.lgamma(rounds - k + 1)
                     for k in ups])  # fmt: skip
    logs += ups * math.log(up) + (rounds - ups) * math.log1p(-up)
    excess = np.maximum(0, -np.expm1(np.minimum(0, epsilon - 0.01 * (2 * ups - rounds))))
    assert np.exp(logs) @ excess == pytest.approx(delta, rel=1e-6)


def test_a_sum_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(sampled, "LARGEST_TRANSFORM", 20)
    with pytest.raises(TooManyPointsError):
        composed_epsilon(LOSSES, 1000, 1e-2)


def test_unlike_losses_add_up():
    other = RoundLosses(step=0.5, lowest=-2, masses=np.array([0.1, 0.0, 0.6, 0.3]), infinite=0.0)
    masses = np.ones(1)
    for losses in (LOSSES, LOSSES, LOSSES, other, other):
        masses = np.convolve(masses, losses.masses)
    sums = 0.5 * (np.arange(len(masses)) - 3 * 1 - 2 * 2)
    epsilon = total_epsilon([(LOSSES, 3), (other, 2)], 1e-2)
    infinite = 1 - (1 - 1e-6) ** 3
    by_hand = infinite + masses @ np.maximum(0, -np.expm1(epsilon - sums))
    assert epsilon > 0
    assert by_hand == pytest.approx(1e-2, rel=1e-8)
