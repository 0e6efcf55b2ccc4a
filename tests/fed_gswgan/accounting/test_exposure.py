import math

import pytest

from fed_gswgan.accounting.trust import Exposure, SamplingMethod, TrustModel
from fed_gswgan.privacy.events import NeighboringRelation

REPLACE = NeighboringRelation.REPLACE_ONE
LOCAL = {"trust": TrustModel.LOCAL, "relation": REPLACE, "participations": 3}
SECURE = {**LOCAL, "trust": TrustModel.SECURE_AGGREGATION}
CENTRAL = {
    "trust": TrustModel.CENTRAL,
    "relation": REPLACE,
    "rounds": 10,
    "sampling": SamplingMethod.FIXED_SIZE,
    "sampling_probability": 0.1,
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**LOCAL, "honest": 2}, "honest=2 plays no part under trust=local"),
        ({**LOCAL, "rounds": 2}, "rounds=2 plays no part under trust=local"),
        ({**SECURE, "sampling_probability": 0.1}, "sampling-probability=0.1 plays no part"),
        ({**LOCAL, "sampling": SamplingMethod.POISSON}, "sampling=poisson plays no part"),
        ({**CENTRAL, "participations": 2}, "participations=2 plays no part under trust=central"),
        ({**CENTRAL, "honest": 2}, "honest=2 plays no part under trust=central"),
        ({**LOCAL, "participations": None}, "participations must be given under trust=local"),
        ({**CENTRAL, "rounds": None}, "rounds must be given under trust=central"),
        ({**CENTRAL, "sampling": None}, "sampling must be given under trust=central"),
        ({**LOCAL, "participations": -1}, "participations=-1 must"),
        ({**SECURE, "honest": 0}, "honest=0 must"),
        ({**CENTRAL, "rounds": 0}, "rounds=0 must"),
        ({**CENTRAL, "sampling_probability": 0.0}, "sampling-probability=0.0 must"),
        ({**CENTRAL, "sampling_probability": math.nan}, "sampling-probability=nan must"),
        ({**CENTRAL, "sampling": SamplingMethod.POISSON}, "sampling=poisson does not go with"),
    ],
)
def test_what_is_missing_too_much_or_out_of_range_is_named(settings, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Exposure(**settings)


def test_the_count_is_of_participations_or_of_rounds():
    assert Exposure(**LOCAL).with_count(7) == Exposure(**{**LOCAL, "participations": 7})
    assert Exposure(**CENTRAL).with_count(7) == Exposure(**{**CENTRAL, "rounds": 7})


def test_what_a_trust_model_does_not_count_cannot_be_read():
    assert Exposure(**LOCAL).counted() == 3
    with pytest.raises(ValueError, match="trust=local counts participations"):
        Exposure(**LOCAL).selection()
    assert Exposure(**CENTRAL).selection() == (SamplingMethod.FIXED_SIZE, 0.1, 10)
    with pytest.raises(ValueError, match="trust=central counts rounds"):
        Exposure(**CENTRAL).counted()
