import logging
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fed_gswgan.wire.byte_meter import ByteMeter
from server.registration import register_clients
from simulations.in_process_grid import InProcessGrid

# A question is "ask" and "client-id", an answer "client-id" and the id.
QUESTION = 3 + 9


class GrowingGrid(InProcessGrid):
    """One more node appears each time the server looks."""

    looks = 0

    def get_node_ids(self):
        self.looks += 1
        return list(super().get_node_ids())[: self.looks]


def grid_of(client_ids, grid_type=InProcessGrid):
    """A grid whose node ``i`` answers ``client_ids[i]``, or fails where that is None."""
    app = ClientApp()

    @app.query("register")
    def register(message, context):
        client_id = client_ids[context.node_config["partition-id"]]
        if client_id is None:
            raise OSError("no ledger")
        if client_id == "":
            return Message(RecordDict({"other": ConfigRecord({"x": 1})}), reply_to=message)
        content = RecordDict({"config": ConfigRecord({"client-id": client_id})})
        return Message(content, reply_to=message)

    return grid_type(app, len(client_ids), {})


def test_every_client_is_found_at_its_node_in_the_order_of_ids():
    grid = grid_of(["c", "a", "b"])
    first, second, third = grid.get_node_ids()
    nodes = register_clients(grid, ByteMeter(), expected=3, timeout_seconds=10)
    assert list(nodes.items()) == [("a", second), ("b", third), ("c", first)]


def test_of_two_nodes_with_one_client_id_neither_is_asked_and_the_id_is_named(caplog):
    nodes = register_clients(grid_of(["twin", "other", "twin"]), ByteMeter(), 3, timeout_seconds=10)
    assert set(nodes) == {"other"}
    assert "client-id='twin' must be unique: 2 nodes gave it" in caplog.text


def test_a_node_that_fails_is_left_out_and_said_so(caplog):
    with caplog.at_level(logging.WARNING, logger="server.roster"):
        nodes = register_clients(grid_of(["a", None, "b"]), ByteMeter(), 3, timeout_seconds=10)
    assert set(nodes) == {"a", "b"}
    assert "did not register" in caplog.text


def test_a_malformed_answer_is_left_out_and_said_so(caplog):
    with caplog.at_level(logging.WARNING, logger="server.roster"):
        nodes = register_clients(grid_of(["a", "", 7]), ByteMeter(), 3, timeout_seconds=10)
    assert set(nodes) == {"a"}
    assert caplog.text.count("gave no client-id") == 2


def test_no_answer_at_all_is_an_error():
    with pytest.raises(RuntimeError, match="no client registered: 2 nodes were asked"):
        register_clients(grid_of([None, None]), ByteMeter(), 2, timeout_seconds=10)


def test_no_node_at_all_is_an_error_after_the_time_out():
    with pytest.raises(RuntimeError, match="no client registered: 0 nodes were asked"):
        register_clients(grid_of([]), ByteMeter(), expected=1, timeout_seconds=0.05)


def test_nodes_that_appear_late_are_waited_for():
    grid = grid_of(["a", "b", "c"], GrowingGrid)
    nodes = register_clients(grid, ByteMeter(), expected=3, timeout_seconds=10)
    assert set(nodes) == {"a", "b", "c"}
    assert grid.looks == 3


def test_after_the_time_out_the_nodes_that_are_there_will_do():
    nodes = register_clients(grid_of(["a", "b"]), ByteMeter(), expected=9, timeout_seconds=0.05)
    assert set(nodes) == {"a", "b"}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by sleeping alone."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds):
        now.seconds += seconds

    fake = SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep)
    monkeypatch.setattr("server.registration.time", fake)
    return now


def test_a_minute_is_the_longest_wait_for_nodes_and_it_is_said_how_many_are_there(clock, caplog):
    with caplog.at_level(logging.WARNING, logger="server.registration"):
        nodes = register_clients(grid_of(["a", "b"]), ByteMeter(), 9, timeout_seconds=600)
    assert set(nodes) == {"a", "b"}
    assert clock.seconds == pytest.approx(60, abs=0.2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "2 of 9 nodes are there; waiting up to 60 s" in said
    assert "num-supernodes=9" in said


def test_a_shorter_time_out_is_kept(clock):
    register_clients(grid_of(["a"]), ByteMeter(), 9, timeout_seconds=5)
    assert clock.seconds == pytest.approx(5, abs=0.2)


def test_an_interrupt_ends_the_waiting_for_nodes_and_is_no_error(clock):
    meter = ByteMeter()
    assert register_clients(grid_of([]), meter, 1, 60, interrupted=lambda: True) == {}
    assert register_clients(grid_of(["a"]), meter, 1, 60, interrupted=lambda: True) == {}
    assert clock.seconds == 0


def test_both_halves_are_counted_apart_from_the_rounds():
    meter = ByteMeter()
    register_clients(grid_of(["ab", None, "cd"]), meter, 3, timeout_seconds=10)
    assert meter.registration_total == 3 * QUESTION + 2 * (9 + 2)
    assert (meter.downlink_total, meter.uplink_total) == (0, 0)
