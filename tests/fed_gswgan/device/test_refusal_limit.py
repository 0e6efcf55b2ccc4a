"""How many refusals are decided one by one, and what goes on beside them."""

import pytest

from fed_gswgan.device.refusal_limit import (
    KEPT_METERS,
    KNOWN_EXPERIMENTS,
    REFUSALS_A_MINUTE,
    REFUSALS_OF_A_ROUND,
    RefusalLimit,
)
from fed_gswgan.privacy.refusals import TooManyRefusals


def refuse(limit, named, seconds=0.0, times=1000):
    """Send so many requests that are refused; return how many were looked at."""
    for looked_at in range(times):
        try:
            limit.check(*named(looked_at), seconds)
        except TooManyRefusals:
            return looked_at
        limit.note(*named(looked_at), seconds)
    return times


def test_one_round_in_a_loop_leaves_room_for_the_others():
    limit = RefusalLimit()
    assert refuse(limit, lambda _: ("e", 5)) == REFUSALS_OF_A_ROUND
    limit.check("e", 6, 0.0)
    with pytest.raises(TooManyRefusals):
        limit.check("e", 5, 0.0)


def test_all_rounds_of_all_unknown_servers_share_one_limit():
    limit = RefusalLimit()
    assert refuse(limit, lambda number: (f"e{number}", number)) == REFUSALS_A_MINUTE
    with pytest.raises(TooManyRefusals):
        limit.check("honest", 1, 0.0)


def test_refusals_are_forgotten_at_the_pace_of_the_limit():
    limit = RefusalLimit()
    refuse(limit, lambda number: ("e", number))
    pace = 60 / REFUSALS_A_MINUTE
    assert refuse(limit, lambda number: ("e", number), seconds=10 * pace) == 10
    assert refuse(limit, lambda number: ("e", number), seconds=10_000.0) == REFUSALS_A_MINUTE


def test_an_experiment_that_was_answered_keeps_its_place_beside_a_hostile_one():
    limit = RefusalLimit()
    limit.note_release("honest")
    refuse(limit, lambda number: (f"e{number}", number))
    limit.check("honest", 2, 0.0)
    assert refuse(limit, lambda number: ("honest", number)) == REFUSALS_A_MINUTE


def test_what_is_remembered_is_bounded():
    limit = RefusalLimit()
    for number in range(3 * KEPT_METERS):
        limit.note_release(f"e{number}")
        limit.note(f"e{number}", number, 0.0)
    assert len(limit._levels) == KEPT_METERS
    assert len(limit._known) == KNOWN_EXPERIMENTS
