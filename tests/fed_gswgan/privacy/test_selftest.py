import secrets

import numpy as np
import pytest

from fed_gswgan.privacy import sanitizer
from fed_gswgan.privacy.noise_source import SecureNoise, SeededNoise
from fed_gswgan.privacy.refusals import RngUnavailable, SanitizerSelftestFailed
from fed_gswgan.privacy.selftest import require_randomness, selftest


def seeded(seed=0):
    return SeededNoise(np.random.Generator(np.random.Philox(key=seed)))


class Scaled:
    """Noise whose deviation is off by a factor."""

    def __init__(self, factor):
        self.factor = factor

    def add_noise(self, values, stddev):
        return SecureNoise().add_noise(values, self.factor * stddev)


class Planted:
    """Adds what a function of (values, stddev) returns."""

    def __init__(self, noise):
        self.noise = noise

    def add_noise(self, values, stddev):
        return values + self.noise(values, stddev)


BROKEN = {
    "none": Planted(lambda values, stddev: 0.0),
    "too small": Scaled(0.9),
    "too large": Scaled(1.1),
    "a constant": Planted(lambda values, stddev: stddev),
    "the same every time": Planted(
        lambda values, stddev: seeded().add_noise(np.zeros(values.shape), stddev)
    ),
    "not a number": Planted(lambda values, stddev: np.nan),
    "infinite": Planted(lambda values, stddev: np.inf),
    "in place of the values": Planted(
        lambda values, stddev: SecureNoise().add_noise(np.zeros(values.shape), stddev) - values
    ),
}


@pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
def test_what_is_shipped_passes(source):
    assert selftest(source) is None


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_noise_that_is_not_what_it_should_be_fails(source):
    with pytest.raises(SanitizerSelftestFailed, match=r"^(noise of deviation 2|rows) "):
        selftest(source)


def to_the_bound(rows, clipping, bound):
    """Stretch short rows too, as a normalisation would."""
    norms = np.linalg.norm(rows.reshape(len(rows), -1), axis=1).reshape(-1, 1, 1, 1)
    with np.errstate(all="ignore"):
        return np.nan_to_num(rows * bound / norms, posinf=0.0)


CLIPPINGS = {
    "none": lambda rows, clipping, bound: rows,
    "each entry instead of each row": lambda rows, clipping, bound: np.clip(rows, -bound, bound),
    "to twice the bound": lambda rows, clipping, bound: 2 * to_the_bound(rows, clipping, bound),
    "of short rows as well": to_the_bound,
    "of everything to nothing": lambda rows, clipping, bound: np.zeros_like(rows),
}


@pytest.mark.parametrize("broken", CLIPPINGS.values(), ids=CLIPPINGS)
def test_clipping_that_does_not_clip_fails(monkeypatch, broken):
    monkeypatch.setattr(sanitizer, "clip", broken)
    with pytest.raises(SanitizerSelftestFailed, match=r"^rows .* were released with norms"):
        selftest(seeded())


def test_a_system_that_gives_random_bytes_is_accepted():
    assert require_randomness() is None


@pytest.mark.parametrize("error", [OSError, NotImplementedError])
def test_a_system_without_random_bytes_is_refused(monkeypatch, error):
    def fail(count):
        raise error("no entropy")

    monkeypatch.setattr(secrets, "token_bytes", fail)
    with pytest.raises(RngUnavailable, match="no entropy"):
        require_randomness()


def test_a_system_that_repeats_its_random_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    with pytest.raises(RngUnavailable, match="the same random bytes twice"):
        require_randomness()
