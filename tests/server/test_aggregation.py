import itertools

import numpy as np
import pytest

from server.aggregation import combine


def rows(*values):
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1, 1)


def test_the_mean_is_taken_row_by_row_over_clients():
    combined = combine({"a": rows(1, 10), "b": rows(3, 20), "c": rows(5, -60)})
    assert combined.flatten().tolist() == [3, -10]
    assert combined.dtype == np.float32
    assert combined.shape == (2, 1, 1, 1)


def test_the_gradient_of_a_single_client_passes_unchanged():
    gradient = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    assert np.array_equal(combine({"a": gradient}), gradient)


def test_the_order_of_arrival_changes_no_bit():
    # Added in another order these lose the 1, even in float64.
    gradients = {"a": rows(2.0**60), "b": rows(-(2.0**60)), "c": rows(1)}
    for order in itertools.permutations(gradients):
        combined = combine({name: gradients[name] for name in order})
        assert combined.item() == pytest.approx(1 / 3)


def test_sums_are_kept_in_float64():
    # In float32, 2^25 + 1 is 2^25, and the mean would be 0.
    gradients = {"a": rows(2.0**25), "b": rows(1), "c": rows(-(2.0**25)), "d": rows(1)}
    assert combine(gradients).item() == pytest.approx(0.5)


def test_gradients_that_came_in_are_left_as_they_are():
    gradients = {"a": rows(1, 2), "b": rows(3, 4)}
    combine(gradients)
    assert gradients["a"].flatten().tolist() == [1, 2]
    assert gradients["b"].flatten().tolist() == [3, 4]
