import json
import math
import re
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest

from fed_gswgan.privacy.events import (
    NeighboringRelation,
    SanitizedGradientEvent,
    UnsupportedEventError,
    compose,
    largest_reply_norm,
    largest_row_norm,
    local_epsilon,
    noise_norm,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.privacy.sanitizer import sanitize

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT


def event(**changes):
    settings = {"samples": 4, "clipping": "sample", "clipping_bound": 3.0, "noise_stddev": 8.0}
    return SanitizedGradientEvent(**settings | changes)


@pytest.mark.parametrize(
    ("clipping", "relation", "sensitivity", "mu"),
    [
        ("sample", REPLACE, 4.0, 0.5),  # four rows move by 2 C each: 2 x sqrt(4)
        ("sample", ZERO, 2.0, 0.25),
        ("message", REPLACE, 2.0, 0.25),  # the reply as a whole moves by 2 C
        ("message", ZERO, 1.0, 0.125),
    ],
)
def test_sensitivity_and_mu_by_hand(clipping, relation, sensitivity, mu):
    assert event(clipping=clipping).sensitivity(relation) == sensitivity
    assert event(clipping=clipping).mu(relation) == mu


def test_mu_does_not_depend_on_the_clipping_bound():
    assert event(clipping_bound=0.001).mu(REPLACE) == event(clipping_bound=1e6).mu(REPLACE)


def test_message_clipping_does_not_depend_on_the_number_of_rows():
    assert event(clipping="message", samples=1) != event(clipping="message", samples=48)
    assert event(clipping="message", samples=48).mu(ZERO) == 0.125


def test_event_survives_json():
    assert SanitizedGradientEvent(**json.loads(json.dumps(asdict(event())))) == event()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 0),
        ("samples", 1.5),
        ("clipping", "row"),
        ("clipping_bound", 0.0),
        ("clipping_bound", math.inf),
        ("clipping_bound", 1e30),
        ("clipping_bound", 1e-30),
        ("noise_stddev", -1.0),
        ("noise_stddev", 0.0),
        ("noise_stddev", 1e-9),
        ("noise_stddev", 1e9),
        ("noise_stddev", math.nan),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_setting(field, value):
    with pytest.raises(
        ValueError, match=rf"^{field.replace('_', '-')}={re.escape(repr(value))} must "
    ):
        event(**{field: value})


def test_event_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        event().noise_stddev = 100.0


def test_mu_of_the_loudest_and_the_quietest_reply_is_finite_and_positive():
    for stddev in (math.nextafter(1e-9, 1), math.nextafter(1e9, 0)):
        mu = event(noise_stddev=stddev, samples=10**9).mu(REPLACE)
        assert 0 < mu**2 < math.inf


def test_relation_reads_and_prints_as_its_setting():
    for word in ("replace-one", "zero-out"):
        assert str(NeighboringRelation(word)) == word
    with pytest.raises(ValueError, match="add-or-remove-one"):
        NeighboringRelation("add-or-remove-one")


def test_composition_is_the_root_of_the_sum_of_squares():
    # Under replace-one mu = 2 x 2 / 8, 2 / 8 and 2 / 4: squares 1/4, 1/16 and 1/4.
    releases = {event(): 4, event(samples=1): 1, event(noise_stddev=4.0, clipping="message"): 2}
    assert compose(releases, REPLACE) == pytest.approx(math.sqrt(4 / 4 + 1 / 16 + 2 / 4))
    assert compose(releases, ZERO) == pytest.approx(compose(releases, REPLACE) / 2)
    assert compose(dict(reversed(releases.items())), REPLACE) == compose(releases, REPLACE)
    assert compose({}, REPLACE) == 0.0


def test_unknown_event_raises():
    with pytest.raises(UnsupportedEventError, match="str"):
        compose({"sanitized": 1}, REPLACE)


def test_participations_add_up_and_honest_survivors_share_the_noise():
    nine = gaussian_epsilon(compose({event(): 9}, REPLACE), 1e-5)
    assert local_epsilon(event(), 9, REPLACE, 1e-5) == pytest.approx(nine, rel=1e-12)
    one = local_epsilon(event(), 1, REPLACE, 1e-5)
    assert local_epsilon(event(), 9, REPLACE, 1e-5, honest=9) == pytest.approx(one, rel=1e-12)
    assert local_epsilon(event(), 0, REPLACE, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"participations": -1}, "participations=-1"),
        ({"participations": 1.5}, "participations=1.5"),
        ({"participations": 1, "honest": 0}, "honest=0"),
    ],
)
def test_impossible_counts_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must "):
        local_epsilon(event(), relation=REPLACE, delta=1e-5, **arguments)


@pytest.mark.parametrize("clipping", ["sample", "message"])
def test_honest_replies_are_within_the_bounds_and_not_far_below(clipping):
    asked = event(clipping=clipping, samples=8, clipping_bound=0.5, noise_stddev=2.14)
    randomness = np.random.default_rng(0)
    raw = randomness.normal(size=(8, 1, 28, 28)).astype(np.float32) * 1e6  # clipped to the bound
    rows, replies = [], []
    for _ in range(200):
        values = sanitize(raw, asked, SeededNoise(randomness)).values_BCHW.reshape(8, -1)
        rows.append(np.linalg.norm(values, axis=1).max())
        replies.append(np.linalg.norm(values))
    assert max(rows) < largest_row_norm(asked, 784) < 1.3 * max(rows)
    assert max(replies) < largest_reply_norm(asked, 784) < 1.15 * max(replies)


def test_norm_of_noise_is_within_its_bound_as_often_as_it_says():
    norms = np.linalg.norm(np.random.default_rng(1).normal(size=(200_000, 3)), axis=1)
    assert (norms > noise_norm(3, 1e3)).mean() <= 1e-3


def test_without_noise_only_the_clipping_is_left():
    quiet = {"samples": 8, "clipping_bound": 0.5, "noise_stddev": 2e-9}
    assert largest_row_norm(event(**quiet), 784) == pytest.approx(0.5, rel=1e-6)
    whole = largest_reply_norm(event(**quiet), 784)
    assert whole == pytest.approx(0.5 * math.sqrt(8), rel=1e-6)
    whole = largest_reply_norm(event(clipping="message", **quiet), 784)
    assert whole == pytest.approx(0.5, rel=1e-6)
