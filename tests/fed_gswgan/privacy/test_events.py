import json
import math
import re
from dataclasses import FrozenInstanceError, asdict

import pytest

from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent

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
