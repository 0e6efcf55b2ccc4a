import pytest

from fed_gswgan.progress import steps, tell, watched_by


def test_a_watcher_is_told_what_happens_while_it_watches():
    told = []
    with watched_by(lambda *what: told.append(what)):
        assert list(steps("fit", "abc")) == ["a", "b", "c"]
        tell("rounds", 4, 9)
    tell("rounds", 5, 9)
    assert told == [("fit", 0, 3), ("fit", 1, 3), ("fit", 2, 3), ("fit", 3, 3), ("rounds", 4, 9)]


def test_the_end_is_told_of_a_step_that_fails():
    told = []
    with watched_by(lambda *what: told.append(what)), pytest.raises(ZeroDivisionError):
        [1 // number for number in steps("fit", [1, 0, 1])]
    assert told == [("fit", 0, 3), ("fit", 1, 3), ("fit", 3, 3)]
