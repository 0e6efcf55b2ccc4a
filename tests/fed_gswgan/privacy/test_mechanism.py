"""Promises of the Gaussian mechanism: the cost of a release, its bound, its grid and its noise."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fed_gswgan.privacy.mechanism import (
    Event,
    NeighboringRelation,
    bound,
    clip,
    compose,
    grid_step,
    noise_deviation,
    privatize,
)
from fed_gswgan.privacy.noise import SecureNoise, SeededNoise

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
EVENT = Event(rows=4, numbers=3, clipping_bound=1.0, noise_stddev=8.0)
NO_EXTRA = np.empty(0)
ANY_BOUND = st.floats(1e-29, 1e29)
AT_THE_BOUND = st.sampled_from([None, 0.999, 1.0, 1.0 + 2**-50])
BOUNDED = st.sampled_from(["sample", "message"])
ANY_NOISE = st.floats(1.001e-9, 0.999e9)


def exact_square(numbers):
    return sum(Fraction(float(number)) ** 2 for number in np.ravel(numbers))


def seeded(seed=0):
    return SeededNoise(np.random.default_rng(seed))


class TestCost:
    @pytest.mark.parametrize(("relation", "multiple"), [(REPLACE, 2), (ZERO, 1)])
    def test_cost_is_the_multiple_times_the_root_of_parts(self, relation, multiple):
        """The extra numbers are one more part, however many, and none of a whole message."""
        whole = {"bounded": "message"}
        for fields, parts in (
            ({}, 4), ({"rows": 1}, 1), ({"extra": 1}, 5), ({"extra": 2}, 5),
            ({"clipping_bound": 7.0}, 4), (whole, 1), (whole | {"extra": 2}, 1),
        ):  # fmt: skip
            event = replace(EVENT, **fields)
            assert event.sensitivity(relation) == multiple * math.sqrt(parts)
            assert event.mu(relation) == multiple * math.sqrt(parts) / 8
            shares = replace(event, trust="secure-aggregation", honest=16)
            assert shares.mu(relation) == event.mu(relation) / 4

    def test_no_update_moves_a_release_further_than_sensitivity(self):
        """The worst neighbours, by hand: every part at the bound, and the opposite or zero."""
        long, extra = np.full((4, 3), 99.0), np.full(2, 99.0)
        for bounded in ("sample", "message"):
            event = replace(EVENT, extra=2, bounded=bounded, clipping_bound=3.0)
            one, other = bound(long, extra, event), bound(-long, -extra, event)
            for relation, neighbour in ((REPLACE, other), (ZERO, 0)):
                moved = float(np.linalg.norm(one - neighbour)) / 3.0
                assert moved == pytest.approx(event.sensitivity(relation), rel=1e-12)

    def test_releases_compose_to_the_root_of_the_sum_of_squares(self):
        louder = replace(EVENT, noise_stddev=16.0)
        # mu is 0.5, and 0.25.
        assert compose({EVENT: 16}, REPLACE) == 2.0
        assert compose({EVENT: 3, louder: 4}, REPLACE) == 1.0
        assert compose({}, REPLACE) == 0.0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"rows": 2**13, "numbers": 2**13, "extra": 1}, {"clipping_bound": 1e30},
            {"noise_stddev": 0.0}, {"noise_stddev": math.nan}, {"noise_stddev": 1e9},
            {"honest": 2}, {"honest": 2, "trust": "central"}, {"rows": True}, {"trust": "paper"},
        ],
        ids=str,
    )  # fmt: skip
    def test_an_event_out_of_range_is_refused(self, wrong):
        with pytest.raises(ValueError):
            replace(EVENT, **wrong)


class TestBound:
    def test_rows_and_extra_numbers_are_clipped_by_hand(self):
        rows, extra = np.array([[3.0, 4.0], [0.3, 0.4]]), np.array([12.0])
        event = replace(EVENT, rows=2, numbers=2, extra=1)
        assert bound(rows, extra, event) == pytest.approx([0.6, 0.8, 0.3, 0.4, 1.0])
        assert bound(rows, extra, event)[2:4].tolist() == [0.3, 0.4]  # inside: to the bit
        whole = replace(event, rows=1, bounded="message")
        assert bound(rows[:1], extra, whole) == pytest.approx([3 / 13, 4 / 13, 12 / 13])

    @given(arrays(np.float64, (3, 5), elements=st.floats()), ANY_BOUND, AT_THE_BOUND)
    @settings(max_examples=300, deadline=None)
    def test_the_exact_norm_never_exceeds_the_bound(self, parts, bounded_by, scale):
        if scale is not None:
            with np.errstate(all="ignore"):
                parts = parts / np.linalg.norm(parts, axis=1, keepdims=True) * (bounded_by * scale)
        event = replace(EVENT, clipping_bound=bounded_by)
        clipped = clip(parts, event)
        for row, before in zip(clipped, parts, strict=True):
            assert exact_square(row) <= Fraction(bounded_by) ** 2
            if not np.isfinite(before).all():
                assert not row.any()
        assert clip(clipped, event).tolist() == clipped.tolist()

    @pytest.mark.parametrize("numbers", [1, 784, 5_000])
    def test_long_updates_at_the_bound_stay_within_it_exactly(self, numbers):
        randomness = np.random.default_rng(numbers)
        parts = randomness.standard_normal((8, numbers)) * 10.0 ** randomness.integers(2, 9, (8, 1))
        for row in clip(parts, replace(EVENT, clipping_bound=0.1)):
            assert exact_square(row) <= Fraction(0.1) ** 2
            assert np.linalg.norm(row) > 0.1 * (1 - 1e-10)  # and nothing is given away

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_part_with_no_number_becomes_zero_alone(self, bad, dtype):
        rows = np.full((4, 3), 0.25, dtype)
        rows[1, 2] = bad
        expected = [0.25] * 3 + [0.0] * 3 + [0.25] * 6
        found = bound(rows, np.array([bad, 0.5], dtype), replace(EVENT, extra=2))
        assert found.tolist() == [*expected, 0.0, 0.0]
        assert not bound(rows, NO_EXTRA, replace(EVENT, bounded="message")).any()

    def test_another_shape_is_refused(self):
        for rows, extra in ((3, 3), 0), ((4, 2), 0), ((4, 3), 1), ((12,), 0), ((2, 6), 0):
            with pytest.raises(ValueError, match="is not that of"):
                bound(np.zeros(rows), np.zeros(extra), EVENT)


class TestGrid:
    @given(noise=ANY_NOISE, bounded_by=ANY_BOUND)
    @settings(deadline=None)
    def test_steps_are_public_powers_of_two_that_fit_an_int32(self, noise, bounded_by):
        fields = {"noise_stddev": noise, "clipping_bound": bounded_by}
        local, deviation = replace(EVENT, **fields), noise_deviation(replace(EVENT, **fields))
        exact = Fraction(noise) * Fraction(bounded_by)  # which is charged
        assert exact <= Fraction(deviation) <= exact * (1 + Fraction(1, 2**51))
        steps = {"central": grid_step(replace(local, trust="central")), "local": grid_step(local)}
        assert bounded_by / 2**21 < steps["central"] <= bounded_by / 2**20
        if noise > 2.0**-19:
            assert deviation / 2**11 < steps["local"] <= deviation / 2**10
        if noise > 1e-8:
            shares = steps["share"] = grid_step(replace(local, trust="secure-aggregation"))
            assert 2 <= deviation / shares < 4
        for trust, step in steps.items():
            assert math.frexp(step)[0] == 0.5
            largest = bounded_by + (64 * deviation if trust != "central" else 0)
            assert largest / step < 2**31 - 1

    def test_a_share_too_small_to_fit_is_refused_by_name(self):
        event = replace(EVENT, trust="secure-aggregation", noise_stddev=2e-9)
        with pytest.raises(ValueError, match=r"noise-stddev=2e-09 .* too small beside"):
            grid_step(event)


class TestPrivatize:
    @pytest.mark.parametrize("trust", ["local", "secure-aggregation", "central"])
    def test_a_seed_decides_the_steps(self, trust):
        event = replace(EVENT, trust=trust, extra=2)
        rows = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
        extra = np.array([0.5, -0.25])
        first, same, other = (
            privatize(rows.astype(dtype), extra, event, seeded(seed)).tolist()
            for seed, dtype in ((3, np.float32), (3, np.float64), (4, np.float32))
        )
        assert first == same
        assert len(first) == event.size
        assert (first == other) == (trust == "central")

    @pytest.mark.parametrize("noise", [1.1e-9, 1e-3, 2.14, 0.9e9])
    @pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
    def test_noise_has_the_deviation_of_the_event_and_fits_an_int32(self, noise, source):
        event = Event(rows=8, numbers=5000, clipping_bound=0.5, noise_stddev=noise)
        steps = privatize(np.zeros((8, 5000)), NO_EXTRA, event, source)
        assert np.abs(steps).max() < 2**31
        deviation = steps.std() * grid_step(event) / 0.5
        # Where an int32 leaves no finer grid, its rounding adds a step^2 / 12.
        expected = math.hypot(noise, grid_step(event) / 0.5 / math.sqrt(12) if noise < 1e-6 else 0)
        assert deviation == pytest.approx(expected, rel=6 / math.sqrt(2 * 40_000))

    @given(arrays(np.float64, (4, 3), elements=st.floats()), ANY_BOUND, BOUNDED)
    @settings(deadline=None)
    def test_central_rounding_is_towards_zero_and_lengthens_nothing(self, rows, limit, bounded):
        event = replace(EVENT, bounded=bounded, clipping_bound=limit, trust="central")
        before, step = bound(rows, NO_EXTRA, event), grid_step(event)
        after = privatize(rows, NO_EXTRA, event, None) * step
        assert (np.abs(after) <= np.abs(before)).all()
        assert (np.abs(before - after) < step).all()
        assert (after * before >= 0).all()
        for part in after.reshape(event.bounded_parts, -1):
            assert exact_square(part) <= Fraction(limit) ** 2

    @pytest.mark.parametrize("source", [SecureNoise(), seeded()], ids=["secure", "seeded"])
    def test_the_mean_sum_of_secure_aggregation_is_the_true_sum(self, source):
        """Coordinates shorter than a step survive: what is rounded has its noise already.

        Rounding an update before its noise would leave nothing of it, towards zero, or 13 % too
        much, to the nearest step.
        """
        event = Event(
            rows=64, numbers=784, clipping_bound=1.0, noise_stddev=2.0**-4, honest=64,
            trust="secure-aggregation",
        )  # fmt: skip
        step, rounds = grid_step(event), 64
        assert noise_deviation(event) / step == 2
        # The rows are 64 clients' updates; of ten, nine agree in the sign of a coordinate.
        randomness = np.random.default_rng(5)
        signs = randomness.choice([-1, 1], 784) * randomness.choice([-1, *[1] * 9], (64, 784))
        updates = 0.03 * signs * randomness.uniform(0.8, 1.04, (64, 784))
        true_sum = updates.sum(axis=0)
        assert np.abs(updates).max() < step
        assert np.linalg.norm(updates, axis=1).max() < 1
        steps = sum(privatize(updates, NO_EXTRA, event, source) for _ in range(rounds))
        mean_sum = steps.reshape(64, 784).sum(axis=0) * step / rounds
        # Over 784 coordinates, the noise leaves a standard error of 0.16 %.
        assert mean_sum @ true_sum / (true_sum @ true_sum) == pytest.approx(1, abs=0.01)
        error = math.sqrt(np.square(mean_sum - true_sum).mean())
        assert error == pytest.approx(2.0**-4 * math.sqrt(64 / rounds), rel=0.15)
