import pytest

from fed_gswgan.privacy.events import NeighboringRelation


def test_two_values_of_norm_c_are_at_most_two_c_apart_and_c_from_zero():
    assert NeighboringRelation.REPLACE_ONE.sensitivity_multiple == 2
    assert NeighboringRelation.ZERO_OUT.sensitivity_multiple == 1


def test_relation_reads_and_prints_as_its_setting():
    assert str(NeighboringRelation("replace-one")) == "replace-one"
    assert str(NeighboringRelation("zero-out")) == "zero-out"


def test_unknown_relation_is_refused():
    with pytest.raises(ValueError, match="add-or-remove-one"):
        NeighboringRelation("add-or-remove-one")
