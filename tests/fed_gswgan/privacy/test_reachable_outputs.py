"""Which numbers can come out: the attack on floating-point noise, on naive noise and on ours."""

import numpy as np
import pytest

from fed_gswgan.privacy.mechanism import Event, grid_step, privatize
from fed_gswgan.privacy.noise import SecureNoise

STDDEV = 2.14
STEP = 2.0**-9  # 2.14 / 1024, down to a power of two
EVENT = Event(rows=32, numbers=784, clipping_bound=1.0, noise_stddev=STDDEV)
GRADIENTS = [0.0, 1e-30, 0.036, -0.3, 1.0, 1e30]  # of one pixel in a row


def naive(gradient, count=20_000):
    """The noise that protects nothing: float32(2.14 * randn) + g."""
    normals = np.random.default_rng(5).standard_normal(count, np.float32)
    return np.float32(STDDEV) * normals + np.float32(gradient)


def released(gradient):
    """Return 250,000 coordinates of value 0, one in a hundred of which has the gradient."""
    rows = np.zeros((32, 784))
    rows[:, :28] = gradient / np.sqrt(28)
    steps = [privatize(rows, np.empty(0), EVENT, SecureNoise()) for _ in range(10)]
    return np.stack(steps).reshape(10, 32, 784) * grid_step(EVENT)


def is_naive_noise_on_zero(outputs):
    """Tell which outputs some float32 z reaches by z -> fl(2.14 z)."""
    stddev = np.float32(STDDEV)
    nearest = (outputs.astype(np.float64) / float(stddev)).astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    above = np.nextafter(nearest, np.float32(np.inf))
    return np.any([stddev * z == outputs for z in (below, nearest, above)], axis=0)


def is_secure_noise_on_zero(outputs):
    return outputs == np.round(outputs / STEP) * STEP


def test_naive_noise_on_zero_is_always_taken_for_that():
    assert is_naive_noise_on_zero(naive(0.0)).all()


@pytest.mark.parametrize("gradient", [0.036, 0.3, 1.0])
def test_naive_noise_proves_of_many_coordinates_that_they_were_not_zero(gradient):
    possible = is_naive_noise_on_zero(naive(gradient)).mean()
    assert 0.90 < possible < 0.97
    # Of a whole image of such coordinates hardly any stays consistent with zero.
    assert possible ** (28 * 28) < 1e-10


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_secure_noise_reaches_the_same_numbers_whatever_it_is_added_to(gradient):
    outputs = released(gradient)
    assert is_secure_noise_on_zero(outputs).all()
    # All of the grid within half a deviation, so that no coarser one betrays a value.
    touched = np.unique(np.round(outputs / STEP))
    assert np.isin(np.arange(-500, 501), touched).all()
    on_gradient = outputs[:, :, :28] / STEP
    assert {0.0, 1.0} <= set(np.unique(on_gradient % 2))
    assert not np.signbit(outputs[outputs == 0]).any()
