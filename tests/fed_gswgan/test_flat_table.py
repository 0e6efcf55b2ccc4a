from dataclasses import dataclass

import pytest

from fed_gswgan.flat_table import from_table, to_table


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
