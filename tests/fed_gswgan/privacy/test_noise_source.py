import math
import os
import random

import numpy as np
import pytest
import torch

from fed_gswgan.privacy import noise_source
from fed_gswgan.privacy.noise_source import SecureNoise, SeededNoise, named_noise_source

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


def test_step_does_not_jump_where_a_deviation_lies_beside_a_power_of_two():
    for stddev, step in [
        (1.0, 2.0**-10),
        (np.nextafter(1, 2), 2.0**-10),
        (np.nextafter(1, 0), 2.0**-11),
    ]:
        released = SecureNoise().add_noise(np.zeros(1000), float(stddev)) / step
        assert np.array_equal(released, np.round(released))
        assert (released % 2 == 1).any()


def test_released_zeros_have_no_sign():
    # A deviation in 2500 or so; both signs of what was rounded to it.
    released = SecureNoise().add_noise(np.full(100_000, -1e-6), 1.0)
    zeros = released[released == 0]
    assert len(zeros) > 10
    assert not np.signbit(zeros).any()


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x01, 0x80])
def test_extreme_words_give_finite_noise(monkeypatch, byte):
    with_words(monkeypatch, byte)
    noise = SecureNoise().add_noise(np.zeros(8), 1.0)
    assert np.isfinite(noise).all()
    assert np.abs(noise).max() < 15


def test_a_value_beyond_all_use_is_clamped_and_answered():
    released = SecureNoise().add_noise(np.array([1e300, -1e300, 0.5]), 1.0)
    assert released == pytest.approx([2.0**40, -(2.0**40), 0.5], abs=8)


def test_without_random_bytes_nothing_is_released(monkeypatch):
    def fail(count):
        raise OSError("no entropy")

    monkeypatch.setattr(noise_source.secrets, "token_bytes", fail)
    with pytest.raises(OSError, match="no entropy"):
        SecureNoise().add_noise(np.zeros(3), 1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_draws_other_noise_than_its_parent():
    source = SecureNoise()
    source.add_noise(np.zeros(100), 1.0)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, source.add_noise(np.zeros(100), 1.0).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = np.frombuffer(os.read(reading, 800))
    os.close(reading)
    os.close(writing)
    assert of_child.std() > 0.5
    assert (of_child == source.add_noise(np.zeros(100), 1.0)).mean() < 0.1


def test_far_tails_are_as_frequent_as_they_should_be():
    """Six standard deviations of the count, on each side by itself: a false alarm in 10^8 runs."""
    count, stddev = 4_000_000, 2.14
    noise = SecureNoise().add_noise(np.zeros(count), stddev) / stddev
    for limit in (3.0, 4.0):
        expected = count * math.erfc(limit / math.sqrt(2)) / 2
        for side in (noise, -noise):
            found = (side > limit).sum()
            # A grid step of 2^-10 may move the limit by half of it: 0.2 percent of the count.
            assert abs(found - expected) < 6 * math.sqrt(expected) + 0.003 * expected
    assert np.abs(noise).max() > 4.5


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


def test_a_seeded_source_is_made_only_where_the_setting_names_it():
    def added(name):
        randomness = np.random.Generator(np.random.Philox(key=0))
        return named_noise_source(name, randomness).add_noise(np.zeros(5), 1.0)

    assert np.array_equal(added("seeded"), seeded().add_noise(np.zeros(5), 1.0))
    assert not np.array_equal(added("secure"), added("secure"))


def test_a_secure_source_never_touches_the_seeds_randomness():
    randomness = np.random.Generator(np.random.Philox(key=0))
    named_noise_source("secure", randomness).add_noise(np.zeros(5), 1.0)
    assert randomness.random() == np.random.Generator(np.random.Philox(key=0)).random()
