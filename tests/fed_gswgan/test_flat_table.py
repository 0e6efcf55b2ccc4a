import math
import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_gswgan.flat_table import from_table, to_table, toml_value


@dataclass(frozen=True, kw_only=True)
class Oven:
    target_heat: float = 180.0
    shelf: int = 2
    fan_name: str = "hot"
    is_on: bool = False


def test_a_missing_key_takes_the_default_and_others_roles_keys_are_left_alone():
    assert from_table(Oven, {"shelf": 3, "other-role": 1}) == Oven(shelf=3)


def test_there_and_back():
    oven = Oven(target_heat=90.5, is_on=True)

    assert to_table(oven) == {"target-heat": 90.5, "shelf": 2, "fan-name": "hot", "is-on": True}
    assert from_table(Oven, to_table(oven)) == oven


def test_a_whole_number_is_a_float_where_one_is_asked():
    assert from_table(Oven, {"target-heat": 200}).target_heat == 200.0


@pytest.mark.parametrize(
    ("key", "value"),
    [("shelf", 2.0), ("shelf", True), ("is-on", 1), ("fan-name", 3), ("target-heat", "hot")],
)
def test_a_value_of_another_type_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=key):
        from_table(Oven, {key: value})


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.lists(TEXT)
)
def test_toml_reads_every_value_as_it_was(value):
    written = toml_value(value)
    assert "\n" not in written
    read = tomllib.loads(f"key = {written}")["key"]
    assert (type(read), read) == (type(value), value)


def test_no_limit_is_written_as_toml_has_it():
    assert toml_value(math.inf) == "inf"
