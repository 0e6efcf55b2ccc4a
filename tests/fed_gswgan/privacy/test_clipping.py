import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fed_gswgan.privacy.clipping import clip

SHAPE = (1, 2, 3)
CLIPPINGS = st.sampled_from(["sample", "message"])
BOUNDS = st.sampled_from([1e-30, 1e-3, 1 / 3, 1.0, 7.5, 1e30])
BAD = [np.nan, np.inf, -np.inf]
HOSTILE = {
    "zero": 0.0,
    "one": 1.0,
    "huge": 1e30,
    "largest": np.finfo(np.float64).max,
    "subnormal": 5e-324,
    "nan": np.nan,
    "infinite": -np.inf,
}
many = settings(deadline=None, database=None, derandomize=True, max_examples=200)


def norm(values):
    """A reference that neither overflows nor loses subnormal numbers; off by an ulp."""
    return math.hypot(*np.asarray(values, dtype=np.float64).ravel().tolist())


def is_within(values, bound):
    """Compare the norm with the bound in exact arithmetic."""
    entries = np.asarray(values, dtype=np.float64).ravel().tolist()
    return sum(Fraction(entry) ** 2 for entry in entries) <= Fraction(bound) ** 2


def parts(values, clipping):
    return list(values) if clipping == "sample" else [values]


@st.composite
def gradients(draw, largest_exponent, dtype):
    """Rows of random directions whose lengths differ by many powers of ten."""
    exponents = draw(st.lists(st.floats(-324, largest_exponent), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    directions = np.random.default_rng(seed).standard_normal((len(exponents), *SHAPE))
    lengths = 10.0 ** np.array(exponents)
    return (directions * lengths.reshape(-1, 1, 1, 1)).astype(dtype)


ROWS = st.one_of(gradients(3.5, np.float16), gradients(30, np.float32), gradients(300, np.float64))


@many
@given(ROWS, CLIPPINGS, BOUNDS)
def test_clipped_norm_never_exceeds_the_bound(rows, clipping, bound):
    assert all(is_within(part, bound) for part in parts(clip(rows, clipping, bound), clipping))


@many
@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), CLIPPINGS, BOUNDS)
def test_nor_does_it_when_the_norm_was_a_few_roundings_from_the_bound(seed, ulps, clipping, bound):
    row = np.random.default_rng(seed).standard_normal((1, 1, 5, 8))
    row *= bound / norm(row) * (1 + ulps * 2.0**-52)
    clipped = clip(row, clipping, bound)
    assert is_within(clipped, bound)
    assert norm(clipped) >= bound * (1 - 1e-13)


@pytest.mark.parametrize(
    ("side", "bound"), [(28, 1e-30), (28, 0.1), (28, 1e30), (1024, 0.1), (1024, 1.0), (4096, 0.1)]
)
def test_rounding_that_adds_up_over_many_coordinates_does_not_reach_the_bound(side, bound):
    count = side * side
    for entry in (bound / side, np.nextafter(bound / side, 0), bound):
        clipped = clip(np.broadcast_to(entry, (1, 1, side, side)), "sample", bound)
        assert clipped.min() == clipped.max()
        assert count * Fraction(float(clipped.max())) ** 2 <= Fraction(bound) ** 2
        assert clipped.max() >= bound / side * (1 - 3e-16 * count - 1e-14)


@many
@given(ROWS, CLIPPINGS, BOUNDS)
def test_what_is_longer_is_cut_to_the_bound_in_its_own_direction(rows, clipping, bound):
    clipped = parts(clip(rows, clipping, bound), clipping)
    for part, found in zip(parts(rows.astype(np.float64), clipping), clipped, strict=True):
        if norm(part) > bound:
            expected = part / norm(part) * bound
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-290 * bound)


@many
@given(ROWS, CLIPPINGS, BOUNDS)
def test_what_is_inside_the_bound_is_unchanged(rows, clipping, bound):
    clipped = parts(clip(rows, clipping, bound), clipping)
    for part, found in zip(parts(rows, clipping), clipped, strict=True):
        if norm(part) <= bound * (1 - 1e-14):
            assert np.array_equal(found, part.astype(np.float64))


@many
@given(ROWS, CLIPPINGS, BOUNDS)
def test_clipping_again_changes_nothing(rows, clipping, bound):
    once = clip(rows, clipping, bound)
    assert np.array_equal(clip(once, clipping, bound), once)


@many
@given(ROWS, BOUNDS, st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(rows, bound, random):
    order = random.sample(range(len(rows)), len(rows))
    assert np.array_equal(clip(rows[order], "sample", bound), clip(rows, "sample", bound)[order])
    together = clip(rows, "message", bound)[order]
    np.testing.assert_allclose(clip(rows[order], "message", bound), together, rtol=1e-13)


@many
@given(ROWS, BOUNDS, st.sampled_from(BAD), st.data())
def test_a_row_that_is_not_finite_becomes_zero_and_touches_no_other(rows, bound, bad, data):
    assume(np.isfinite(rows).all())
    spoilt = data.draw(st.integers(0, len(rows) - 1))
    poisoned, zeroed = rows.copy(), rows.copy()
    poisoned[spoilt, 0, 1, 1] = bad
    zeroed[spoilt] = 0
    for clipping in ("sample", "message"):
        assert np.array_equal(clip(poisoned, clipping, bound), clip(zeroed, clipping, bound))
    others = np.delete(rows, spoilt, axis=0)
    kept = np.delete(clip(poisoned, "sample", bound), spoilt, axis=0)
    assert (clip(poisoned, "sample", bound)[spoilt] == 0).all()
    if len(others) > 0:
        assert np.array_equal(kept, clip(others, "sample", bound))


@pytest.mark.parametrize("clipping", ["sample", "message"])
@pytest.mark.parametrize("entry", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_whatever_came_in_is_bounded_finite_double_and_of_its_shape(clipping, entry, dtype):
    values = np.full((4, 1, 5, 5), entry).astype(dtype)
    clipped = clip(values, clipping, 1.0)
    assert clipped.shape == values.shape
    assert clipped.dtype == np.float64
    assert all(is_within(part, 1.0) for part in parts(clipped, clipping))
    assert np.isfinite(clipped).all()
    if not np.isfinite(values).all() or entry == 0:
        assert (clipped == 0).all()


def test_message_clipping_of_rows_of_very_different_scales():
    rows = np.array([3e300, 4e-300, 5e-324, -4e300]).reshape(4, 1, 1, 1)
    clipped = clip(rows, "message", 1.0)
    assert is_within(clipped, 1.0)
    assert clipped.ravel() == pytest.approx([0.6, 0.0, 0.0, -0.8], rel=1e-14)


def test_clipping_by_hand():
    rows = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-6.0, 8.0]]).reshape(4, 1, 1, 2)
    expected = [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [-0.6, 0.8]]
    assert clip(rows, "sample", 1.0).reshape(4, 2) == pytest.approx(np.array(expected))
    # The whole reply is 12 long: 9 + 16 + 36 + 64 + 19 = 144.
    rows[1] = [[[0.0, math.sqrt(19)]]]
    assert clip(rows, "message", 6.0) == pytest.approx(rows / 2)


def test_rows_that_cancel_out_are_not_taken_for_a_short_reply():
    rows = np.array([100.0, -100.0]).reshape(2, 1, 1, 1)
    assert clip(rows, "message", 1.0).ravel() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_what_was_handed_in_is_left_as_it_was():
    rows = np.array([9.0, np.nan, 0.5]).reshape(3, 1, 1, 1)
    clip(rows, "sample", 1.0)
    assert rows.ravel() == pytest.approx([9.0, np.nan, 0.5], nan_ok=True)
