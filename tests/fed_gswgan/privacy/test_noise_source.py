import random

import numpy as np
import pytest
import torch

from fed_gswgan.privacy import noise_source
from fed_gswgan.privacy.noise_source import SecureNoise, SeededNoise

# stddev / 1024, down to a power of two: 0.1 -> 9.8e-5 -> 2^-14, 2.14 -> 2.1e-3 -> 2^-9.
STEPS = [(0.1, 2.0**-14), (1.0, 2.0**-10), (2.14, 2.0**-9), (1024.0, 1.0), (5000.0, 4.0)]


def seeded(seed=0):
    return SeededNoise(np.random.Generator(np.random.Philox(key=seed)))


def with_words(monkeypatch, byte):
    monkeypatch.setattr(noise_source.secrets, "token_bytes", lambda count: bytes([byte]) * count)


@pytest.mark.parametrize(("stddev", "step"), STEPS)
@pytest.mark.parametrize("value", [0.0, 0.3, -1 / 3, 1e-9, 5e-324, 1.0])
def test_secure_outputs_are_whole_multiples_of_a_step_that_depends_on_stddev_alone(
    stddev, step, value
):
    released = SecureNoise().add_noise(np.full((50, 20), value), stddev)
    assert np.array_equal(released / step, np.round(released / step))
    # No coarser grid by accident: odd multiples occur too.
    assert (np.round(released / step) % 2 == 1).any()


def test_which_values_occur_betrays_naive_noise_and_not_secure_noise():
    count, stddev = 20_000, np.float32(2.14)
    normals = np.random.Generator(np.random.Philox(key=5)).standard_normal(count, np.float32)
    assert naive_support(stddev * normals, stddev).all()
    # Every coordinate outside the image of z -> fl(s z) proves that the value was not zero.
    betrayed = naive_support(stddev * normals + np.float32(0.3), stddev)
    assert 0.90 < betrayed.mean() < 0.97

    for value in (0.0, 0.3):
        released = SecureNoise().add_noise(np.full(count, value), 2.14).astype(np.float32)
        on_grid = released * 2**9
        assert np.array_equal(on_grid, np.round(on_grid))


def naive_support(outputs, stddev):
    """Tell which outputs some float32 z reaches by z -> fl(stddev z)."""
    nearest = (outputs.astype(np.float64) / float(stddev)).astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    above = np.nextafter(nearest, np.float32(np.inf))
    return np.any([stddev * z == outputs for z in (below, nearest, above)], axis=0)


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x01, 0x80])
def test_extreme_words_give_finite_noise(monkeypatch, byte):
    with_words(monkeypatch, byte)
    noise = SecureNoise().add_noise(np.zeros(8), 1.0)
    assert np.isfinite(noise).all()
    assert np.abs(noise).max() < 10


def test_words_turn_into_normals_by_inversion():
    # Even words are negative; the other 63 bits over 2^64 are the tail: 0.158655 beyond 1.
    one = int(0.15865525393145707 * 2**64) << 1
    words = np.array([one, one | 1, 0, 1, 2**64 - 1], dtype=np.uint64)
    found = noise_source._standard_normal(words)
    assert found == pytest.approx([-1.0, 1.0, -9.155, 9.155, 0.0], abs=1e-3)


def test_every_coordinate_takes_eight_bytes_whatever_its_value(monkeypatch):
    asked = []
    monkeypatch.setattr(
        noise_source.secrets, "token_bytes", lambda count: asked.append(count) or bytes(count)
    )
    for value in (0.0, 1e300, np.nan):
        SecureNoise().add_noise(np.full((3, 5), value), 1.0)
    assert asked == [120, 120, 120]


@pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
def test_two_calls_differ(source):
    zeros = np.zeros(100)
    first, second = source.add_noise(zeros, 1.0), source.add_noise(zeros, 1.0)
    assert (first == second).mean() < 0.1


def test_same_seed_agrees_and_another_does_not():
    zeros = np.zeros((2, 3))
    assert np.array_equal(seeded(1).add_noise(zeros, 2.0), seeded(1).add_noise(zeros, 2.0))
    assert not (seeded(1).add_noise(zeros, 2.0) == seeded(2).add_noise(zeros, 2.0)).any()


def test_seeded_noise_is_added_to_the_values_and_scales_with_stddev():
    noise = seeded().add_noise(np.zeros(5), 1.0)
    assert seeded().add_noise(np.full(5, 7.0), 3.0) == pytest.approx(7 + 3 * noise, rel=1e-12)


def test_global_generators_are_neither_read_nor_moved():
    def states():
        numpy_state = np.random.get_state()[1:3]
        return str(numpy_state), torch.get_rng_state().tolist(), random.getstate()

    draws = []
    for _ in range(2):
        np.random.seed(1)
        torch.random.manual_seed(1)
        random.seed(1)
        before = states()
        draws.append(SecureNoise().add_noise(np.zeros(100), 1.0))
        seeded().add_noise(np.zeros(100), 1.0)
        assert states() == before
    assert (draws[0] == draws[1]).mean() < 0.1


@pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
def test_noise_has_shape_and_double_precision_of_any_input(source):
    for dtype in (np.float16, np.float32, np.float64):
        noisy = source.add_noise(np.zeros((2, 1, 3, 3), dtype), 1.0)
        assert noisy.shape == (2, 1, 3, 3)
        assert noisy.dtype == np.float64
