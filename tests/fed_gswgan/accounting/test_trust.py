import pytest

from fed_gswgan.accounting.trust import (
    PERMITTED,
    CriticState,
    SamplingMethod,
    TrustModel,
    check_combination,
    must_be_believed,
)
from fed_gswgan.privacy.events import NeighboringRelation

ALLOWED = {
    ("local", None, "replace-one"),
    ("local", None, "zero-out"),
    ("secure-aggregation", None, "replace-one"),
    ("secure-aggregation", None, "zero-out"),
    ("central", "poisson", "zero-out"),
    ("central", "fixed-size", "replace-one"),
    ("central", "revealed", "replace-one"),
    ("central", "revealed", "zero-out"),
    ("paper", "fixed-size", "replace-one"),
}


@pytest.mark.parametrize("trust", TrustModel)
@pytest.mark.parametrize("sampling", [None, *SamplingMethod])
@pytest.mark.parametrize("relation", NeighboringRelation)
def test_just_the_proven_combinations_pass(trust, sampling, relation):
    if (trust, sampling, relation) in ALLOWED:
        check_combination(trust, sampling, relation, None)
    else:
        with pytest.raises(ValueError, match=f"sampling={sampling} .*neighboring={relation} "):
            check_combination(trust, sampling, relation, None)


def test_a_refusal_names_what_is_permitted():
    with pytest.raises(ValueError) as refused:
        check_combination(
            TrustModel.CENTRAL, SamplingMethod.POISSON, NeighboringRelation.REPLACE_ONE, None
        )
    assert str(refused.value) == (
        "sampling=poisson does not go with neighboring=replace-one under trust=central; permitted: "
        "poisson with zero-out, fixed-size with replace-one, revealed with replace-one or zero-out"
    )


@pytest.mark.parametrize(
    ("sampling", "relation"),
    [
        (SamplingMethod.POISSON, NeighboringRelation.ZERO_OUT),
        (SamplingMethod.FIXED_SIZE, NeighboringRelation.REPLACE_ONE),
    ],
)
def test_persistent_critics_void_a_secret_selection(sampling, relation):
    check_combination(TrustModel.CENTRAL, sampling, relation, CriticState.SNAPSHOT)
    with pytest.raises(ValueError, match=f"persistent .*sampling={sampling}: .*sampling=revealed"):
        check_combination(TrustModel.CENTRAL, sampling, relation, CriticState.PERSISTENT)
    assert "critic-state=snapshot" in must_be_believed(TrustModel.CENTRAL, sampling)


@pytest.mark.parametrize("trust", [TrustModel.LOCAL, TrustModel.SECURE_AGGREGATION])
def test_the_state_of_critics_is_no_matter_without_amplification(trust):
    check_combination(trust, None, NeighboringRelation.ZERO_OUT, CriticState.PERSISTENT)
    check_combination(
        TrustModel.CENTRAL,
        SamplingMethod.REVEALED,
        NeighboringRelation.ZERO_OUT,
        CriticState.PERSISTENT,
    )
    assert "snapshot" not in must_be_believed(trust, None)
    assert "snapshot" not in must_be_believed(TrustModel.CENTRAL, SamplingMethod.REVEALED)


def test_every_trust_model_says_against_whom_it_holds():
    for trust in TrustModel:
        sampling = PERMITTED[trust][0][0]
        said = must_be_believed(trust, sampling)
        assert "Holds against" in said or trust is TrustModel.PAPER
    assert "no guarantee" in must_be_believed(TrustModel.PAPER, SamplingMethod.FIXED_SIZE)
