import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr

from fed_gswgan.privacy import sanitizer
from fed_gswgan.privacy.clipping import clip
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.noise_source import SecureNoise, SeededNoise
from fed_gswgan.privacy.sanitizer import release_event
from fed_gswgan.privacy_config import SanitizerConfig

HOSTILE = {
    "zero": np.zeros((4, 1, 5, 5)),
    "one": np.ones((4, 1, 5, 5)),
    "huge": np.full((4, 1, 5, 5), 1e30),
    "largest": np.full((4, 1, 5, 5), np.finfo(np.float64).max),
    "subnormal": np.full((4, 1, 5, 5), 5e-324),
    "nan": np.full((4, 1, 5, 5), np.nan),
    "infinite": np.full((4, 1, 5, 5), -np.inf),
}


def sanitize(gradients, config, source):
    """Sanitize as the event of these settings says."""
    return sanitizer.sanitize(gradients, release_event(len(gradients), config), source)


def seeded(seed=0):
    return SeededNoise(np.random.Generator(np.random.Philox(key=seed)))


@pytest.mark.parametrize("clipping", ["sample", "message"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_becomes_zero_and_is_noised_like_any_other(clipping, bad):
    config = SanitizerConfig(clipping=clipping)
    poisoned = np.full((3, 1, 4, 4), 0.01, dtype=np.float32)
    poisoned[1, 0, 2, 2] = bad
    zeroed = poisoned.copy()
    zeroed[1] = 0
    released = sanitize(poisoned, config, seeded()).values_BCHW
    assert np.array_equal(clip(poisoned, clipping, 1.0)[1], np.zeros((1, 4, 4)))
    assert np.array_equal(released, sanitize(zeroed, config, seeded()).values_BCHW)
    assert (released[1] != 0).all()
    assert np.isfinite(released).all()


@pytest.mark.parametrize("clipping", ["sample", "message"])
@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_reply_is_float32_finite_and_of_one_shape_whatever_the_data(clipping, values, dtype):
    source = seeded()
    released = sanitize(values.astype(dtype), SanitizerConfig(clipping=clipping), source)
    assert released.values_BCHW.dtype == np.float32
    assert released.values_BCHW.shape == (4, 1, 5, 5)
    assert np.isfinite(released.values_BCHW).all()
    # As many draws as coordinates, whatever was noised.
    reference = seeded()
    reference.add_noise(np.zeros((4, 1, 5, 5)), 1.0)
    after = source.add_noise(np.zeros(3), 1.0)
    assert np.array_equal(after, reference.add_noise(np.zeros(3), 1.0))


def test_noise_beyond_float32_is_clamped_to_its_range():
    config = SanitizerConfig(clipping_bound=9e29, noise_stddev=9e8)
    released = sanitize(np.zeros((2, 1, 20, 20)), config, seeded()).values_BCHW
    assert np.isfinite(released).all()
    assert (np.abs(released) == np.finfo(np.float32).max).any()


def test_noise_is_in_units_of_the_bound_and_the_same_for_both_clippings():
    def noise(clipping, bound, stddev):
        config = SanitizerConfig(clipping=clipping, clipping_bound=bound, noise_stddev=stddev)
        return sanitize(np.zeros((2, 1, 3, 3)), config, seeded()).values_BCHW

    unit = noise("sample", 1.0, 1.0)
    assert noise("sample", 3.0, 2.0) == pytest.approx(6 * unit, rel=1e-6)
    assert np.array_equal(noise("message", 3.0, 2.0), noise("sample", 3.0, 2.0))


def test_release_is_the_clipped_gradient_plus_the_noise():
    rows = np.array([3.0, 4.0]).reshape(1, 1, 1, 2)
    config = SanitizerConfig(clipping_bound=1.0, noise_stddev=2.0)
    noise = seeded().add_noise(np.zeros(2), 2.0)
    released = sanitize(rows, config, seeded()).values_BCHW.ravel()
    assert released == pytest.approx(np.array([0.6, 0.8]) + noise, rel=1e-6)


def deviation_used(stddev, bound):
    """Return the deviation that a noise source is asked for."""

    class Recorder:
        def add_noise(self, values, stddev):
            self.stddev = stddev
            return values

    config = SanitizerConfig(clipping_bound=bound, noise_stddev=stddev)
    sanitize(np.zeros((1, 1, 2, 2)), config, recorder := Recorder())
    return recorder.stddev


@pytest.mark.parametrize(("stddev", "bound"), [(2.14, 1.0), (2.14, 0.3), (0.1, 0.7), (87.62, 1e-9)])
def test_noise_is_never_smaller_than_the_exact_product_that_is_charged(stddev, bound):
    exact = Fraction(stddev) * Fraction(bound)
    used = Fraction(deviation_used(stddev, bound))
    assert exact <= used <= exact * (1 + Fraction(1, 2**51))


def test_a_product_that_is_exact_is_left_alone():
    assert deviation_used(2.14, 1.0) == 2.14
    assert deviation_used(2.14, 0.25) == 0.535


def test_event_says_what_was_done():
    config = SanitizerConfig(clipping="message", clipping_bound=0.5, noise_stddev=4.0)
    event = SanitizedGradientEvent(
        samples=3, clipping="message", clipping_bound=0.5, noise_stddev=4.0
    )
    assert sanitize(np.zeros((3, 1, 2, 2)), config, seeded()).event == event
    assert release_event(3, config) == event


def test_gradient_handed_in_is_left_as_it_was():
    rows = np.full((2, 1, 2, 2), 9.0)
    sanitize(rows, SanitizerConfig(), seeded())
    assert np.array_equal(rows, np.full((2, 1, 2, 2), 9.0))


@pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
class TestStatistics:
    """Six standard deviations of each statistic: a false alarm in 10^9 runs."""

    CONFIG = SanitizerConfig(clipping_bound=1.5, noise_stddev=2.0)
    STDDEV = 3.0

    def draw(self, source, rows=1, columns=1000):
        zeros = np.zeros((rows, 1, 1000, columns))
        values = sanitize(zeros, self.CONFIG, source).values_BCHW
        return values.astype(np.float64).reshape(rows, -1) / self.STDDEV

    def test_noise_is_standard_normal_in_units_of_stddev(self, source):
        noise = self.draw(source).ravel()
        count = len(noise)
        chi_square = (noise**2).sum()
        assert abs(chi_square - count) < 6 * math.sqrt(2 * count)
        assert abs(noise.mean()) < 6 / math.sqrt(count)
        for limit in (0.5, 1.0, 2.0, 3.0):
            beyond = math.erfc(limit / math.sqrt(2))
            found = (np.abs(noise) > limit).mean()
            # A grid step of 2^-10 may move a limit by as much.
            slack = 2**-10 * math.exp(-(limit**2) / 2)
            assert abs(found - beyond) < 6 * math.sqrt(beyond / count) + slack

    def test_distribution_is_the_normal_one_everywhere(self, source):
        noise = np.sort(self.draw(source).ravel())
        below = np.arange(len(noise) + 1) / len(noise)
        normal = ndtr(noise)
        distance = max((below[1:] - normal).max(), (normal - below[:-1]).max())
        # Kolmogorov-Smirnov: 2 exp(-2 n d^2) is 10^-9; half a grid step adds the second term.
        limit = math.sqrt(math.log(2e9) / (2 * len(noise)))
        assert distance < limit + 2**-11 / math.sqrt(2 * math.pi)

    def test_rows_and_messages_are_independent(self, source):
        first, second = self.draw(source, 2, 250), self.draw(source, 2, 250)
        correlations = np.corrcoef(np.concatenate([first, second]))
        others = correlations[~np.eye(4, dtype=bool)]
        assert np.abs(others).max() < 6 / math.sqrt(first.shape[1])

    def test_neighbouring_coordinates_are_independent(self, source):
        noise = self.draw(source).ravel()
        for lag in (1, 2, 1000):
            assert abs((noise[lag:] * noise[:-lag]).mean()) < 6 / math.sqrt(len(noise))


def test_two_seeds_are_independent_and_one_agrees_with_itself():
    zeros, config = np.zeros((1, 1, 500, 500)), SanitizerConfig()
    first, again, other = (sanitize(zeros, config, seeded(s)).values_BCHW for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 6 / 500


@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_other_rows_than_were_charged_are_refused_before_any_noise_is_drawn(rows):
    source, event = seeded(), release_event(4, SanitizerConfig())
    with pytest.raises(ValueError, match=f"^samples={rows} must be the 4 charged"):
        sanitizer.sanitize(np.zeros((rows, 1, 2, 2)), event, source)
    assert np.array_equal(source.add_noise(np.zeros(3), 1.0), seeded().add_noise(np.zeros(3), 1.0))


def test_charged_event_decides_clipping_bound_and_noise():
    rows = np.array([[3.0, 4.0], [6.0, 8.0]]).reshape(2, 1, 1, 2)
    event = SanitizedGradientEvent(
        samples=2, clipping="message", clipping_bound=2.0, noise_stddev=0.5
    )
    released = sanitizer.sanitize(rows, event, seeded())
    noise = seeded().add_noise(np.zeros(rows.shape), 1.0)  # 2 x 0.5
    expected = rows * 2 / math.sqrt(125) + noise
    assert released.values_BCHW == pytest.approx(expected, rel=1e-6)
    assert released.event is event


@pytest.mark.parametrize("bound", [math.nextafter(1e-30, 1), math.nextafter(1e30, 0)])
@pytest.mark.parametrize("stddev", [math.nextafter(1e-9, 1), math.nextafter(1e9, 0)])
@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
def test_every_setting_that_is_allowed_can_be_charged_and_answered(bound, stddev, values):
    config = SanitizerConfig(clipping_bound=bound, noise_stddev=stddev)
    for source in (SecureNoise(), seeded()):
        assert np.isfinite(sanitize(values, config, source).values_BCHW).all()
