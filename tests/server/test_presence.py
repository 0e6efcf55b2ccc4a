"""Waiting, over a Grid in this process whose nodes come and go."""

import time

import pytest

from client.app import app as client_app
from fed_gswgan.config import CohortConfig
from fed_gswgan.wire.byte_meter import ByteMeter
from server import presence
from server.presence import RunStalled, wait_for_clients
from server.roster import Roster
from simulations.in_process_grid import InProcessGrid


class Arriving(InProcessGrid):
    """So many nodes of three are there at each look, and the last number from then on."""

    def __init__(self, there):
        super().__init__(client_app, 3, {})
        self.there, self.looks = there, 0

    def get_node_ids(self):
        count = self.there[min(self.looks, len(self.there) - 1)]
        self.looks += 1
        return list(super().get_node_ids())[:count]


@pytest.fixture
def wait(monkeypatch):
    """Return a function that waits over such a Grid for the clients a, b and c."""
    monkeypatch.setattr(presence, "PRESENCE_POLL_SECONDS", 0.01)

    def waited(grid, min_replies, patience=30.0, interrupted=lambda: False):
        node_ids = InProcessGrid.get_node_ids(grid)
        nodes = Roster(dict(zip("abc", node_ids, strict=True)), ByteMeter())
        config = CohortConfig(min_replies=min_replies, reply_timeout_seconds=patience)
        return wait_for_clients(grid, nodes, config, interrupted)

    return waited


def test_nobody_is_waited_for_once_a_step_is_possible(wait):
    grid = Arriving([2])
    assert wait(grid, min_replies=2) == {"c"}
    assert grid.looks == 1


def test_it_waits_until_enough_are_there(wait):
    grid = Arriving([0, 1, 1, 3])
    assert wait(grid, min_replies=2) == frozenset()
    assert grid.looks == 4


def test_it_waits_no_longer_than_a_time_out(wait):
    started = time.monotonic()
    with pytest.raises(RunStalled, match="only 1 of 3 clients are there, min-replies=2; waited"):
        wait(Arriving([1]), min_replies=2, patience=0.2)
    assert 0.2 <= time.monotonic() - started < 10


def test_an_interrupt_ends_the_waiting(wait):
    grid = Arriving([0])
    assert wait(grid, min_replies=1, interrupted=lambda: grid.looks == 3) is None
