"""A mechanism that is broken on this machine releases nothing."""

import secrets
from unittest.mock import Mock

import numpy as np
import pytest

from fed_gswgan.privacy import mechanism
from fed_gswgan.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from fed_gswgan.privacy.refusals import MechanismSelftestFailed, RngUnavailable
from fed_gswgan.privacy.selftest import require_randomness, selftest


def seeded():
    return SeededNoise(np.random.default_rng(0))


class Broken(NoiseSource):
    """Adds what ``noise`` makes of a generator, a standard deviation and a shape."""

    def __init__(self, noise, seed=None):
        self._noise, self._seed = noise, seed

    def draw(self, values, stddev, step):
        noise = self._noise(np.random.default_rng(self._seed), stddev, values.shape)
        return np.rint((values + noise) / step)


def normal(randomness, stddev, shape):
    return randomness.normal(0, stddev, shape)


@pytest.mark.parametrize("source", [SecureNoise(), seeded(), Broken(normal)])
def test_a_sound_mechanism_passes(source):
    selftest(source)
    selftest(source)


WRONG_NOISE = {
    "none": Broken(lambda r, stddev, shape: 0.0),
    "NaN": Broken(lambda r, stddev, shape: np.nan),
    "of two values": Broken(lambda r, stddev, shape: stddev * r.choice([-0.9, 0.9], shape)),
    "less": Broken(lambda r, stddev, shape: normal(r, 0.9 * stddev, shape)),
    "more": Broken(lambda r, stddev, shape: normal(r, 1.1 * stddev, shape)),
    "one for all": Broken(lambda r, stddev, shape: normal(r, stddev, None)),
    "repeated": Broken(normal, seed=0),
}
WRONG_CLIPPING = {
    "never": lambda parts, event: parts,
    "of large numbers": lambda parts, event: np.nan_to_num(parts),
    "to twice the bound": lambda parts, event: np.clip(np.nan_to_num(parts), -2, 2),
    "to nothing": lambda parts, event: np.zeros_like(parts),
}


@pytest.mark.parametrize("noise", WRONG_NOISE)
def test_wrong_noise_fails(noise):
    with pytest.raises(MechanismSelftestFailed, match=r"noise of deviation 2|released"):
        selftest(WRONG_NOISE[noise])


@pytest.mark.parametrize("clip", WRONG_CLIPPING)
def test_wrong_clipping_fails(monkeypatch, clip):
    monkeypatch.setattr(mechanism, "clip", WRONG_CLIPPING[clip])
    with np.errstate(all="ignore"), pytest.raises(MechanismSelftestFailed, match="norms"):
        selftest(seeded())


@pytest.mark.parametrize("fault", [OSError("no entropy"), NotImplementedError("none"), bytes])
def test_randomness_must_come_and_differ(monkeypatch, fault):
    require_randomness()
    monkeypatch.setattr(secrets, "token_bytes", Mock(side_effect=fault))
    with pytest.raises(RngUnavailable, match="random bytes"):
        require_randomness()
