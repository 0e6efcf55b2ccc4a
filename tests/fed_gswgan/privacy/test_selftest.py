"""A mechanism that is broken on this machine releases nothing."""

import secrets

import numpy as np
import pytest

from fed_gswgan.privacy import mechanism
from fed_gswgan.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from fed_gswgan.privacy.refusals import MechanismSelftestFailed, RngUnavailable
from fed_gswgan.privacy.selftest import require_randomness, selftest


def seeded():
    return SeededNoise(np.random.default_rng(0))


class Broken(NoiseSource):
    """Adds what ``noise`` makes of a shape and a standard deviation."""

    def __init__(self, noise):
        self._noise = noise

    def draw(self, values, stddev, step):
        return np.rint((values + self._noise(values.shape, stddev)) / step)


def normal(seed=None):
    return lambda shape, stddev: np.random.default_rng(seed).normal(0, stddev, shape)


@pytest.mark.parametrize("source", [SecureNoise(), seeded(), Broken(normal())])
def test_a_sound_mechanism_passes(source):
    selftest(source)
    selftest(source)


@pytest.mark.parametrize(
    "noise",
    [
        lambda shape, stddev: 0.0,
        lambda shape, stddev: np.nan,
        lambda shape, stddev: stddev * np.random.default_rng().choice([-0.9, 0.9], shape),
        lambda shape, stddev: normal()(shape, 0.9 * stddev),
        lambda shape, stddev: normal()(shape, 1.1 * stddev),
        lambda shape, stddev: np.random.default_rng().normal(0, stddev),  # one for all numbers
        normal(seed=0),  # the same each time
    ],
    ids=["none", "NaN", "two values", "less", "more", "one for all", "repeated"],
)
def test_wrong_noise_fails(noise):
    with pytest.raises(MechanismSelftestFailed, match=r"noise of deviation 2|released"):
        selftest(Broken(noise))


@pytest.mark.parametrize(
    "clip",
    [
        lambda parts, event: parts,
        lambda parts, event: np.nan_to_num(parts),
        lambda parts, event: np.clip(np.nan_to_num(parts), -2, 2),
        lambda parts, event: np.zeros_like(parts),
    ],
    ids=["never", "of large numbers", "to twice the bound", "to nothing"],
)
def test_wrong_clipping_fails(monkeypatch, clip):
    monkeypatch.setattr(mechanism, "clip", clip)
    with np.errstate(all="ignore"), pytest.raises(MechanismSelftestFailed, match="norms"):
        selftest(seeded())


@pytest.mark.parametrize("error", [OSError("no entropy"), NotImplementedError("none"), None])
def test_randomness_must_come_and_differ(monkeypatch, error):
    require_randomness()

    def tokens(count):
        if error:
            raise error
        return bytes(count)

    monkeypatch.setattr(secrets, "token_bytes", tokens)
    with pytest.raises(RngUnavailable, match="random bytes"):
        require_randomness()
