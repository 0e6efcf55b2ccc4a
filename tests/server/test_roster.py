import logging

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fed_gswgan.wire.byte_meter import ByteMeter
from server.roster import Roster
from simulations.in_process_grid import InProcessGrid


class ComingAndGoing(InProcessGrid):
    """Nodes that the test lets in and out; node ``i`` says it is ``client_ids[i]``."""

    def __init__(self, client_ids):
        self.client_ids = client_ids
        app = ClientApp()

        @app.query("register")
        def register(message, context):
            client_id = self.client_ids[context.node_config["partition-id"]]
            if client_id is None:
                raise OSError("no guard answers")
            content = RecordDict({"config": ConfigRecord({"client-id": client_id})})
            return Message(content, reply_to=message)

        super().__init__(app, len(client_ids), {})
        self.all = list(super().get_node_ids())
        self.online = set(self.all)
        self.questions = 0

    def get_node_ids(self):
        return [node_id for node_id in self.all if node_id in self.online]

    def push_messages(self, messages):
        messages = list(messages)
        self.questions += len(messages)
        return super().push_messages(messages)


def roster_of(grid, registered):
    """The roster after the first ``registered`` nodes gave their ids at the start."""
    nodes = dict(zip(grid.client_ids[:registered], grid.all[:registered], strict=True))
    grid.online = set(grid.all[:registered])
    return Roster(nodes, ByteMeter())


def settled(roster, grid):
    """Ask, and take the answers in."""
    roster.refresh(grid)
    return roster.refresh(grid)


def test_while_everybody_is_there_nobody_is_absent_and_nobody_is_asked():
    grid = ComingAndGoing(["a", "b"])
    roster = roster_of(grid, 2)
    assert roster.refresh(grid) == frozenset()
    assert grid.questions == 0


def test_whoever_left_is_absent_until_the_node_is_back():
    grid = ComingAndGoing(["a", "b"])
    roster = roster_of(grid, 2)
    grid.online.remove(grid.all[1])
    assert roster.refresh(grid) == {"b"}
    grid.online.add(grid.all[1])
    assert roster.refresh(grid) == frozenset()


def test_a_client_that_returns_at_another_node_is_reached_there():
    grid = ComingAndGoing(["a", "b", "b"])
    roster = roster_of(grid, 2)
    grid.online = {grid.all[0], grid.all[2]}
    assert settled(roster, grid) == frozenset()
    assert roster.nodes == {"a": grid.all[0], "b": grid.all[2]}


def test_a_device_that_comes_late_joins_the_population():
    grid = ComingAndGoing(["a", "late"])
    roster = roster_of(grid, 1)
    grid.online = set(grid.all)
    settled(roster, grid)
    assert roster.nodes == dict(zip(["a", "late"], grid.all, strict=True))


def test_who_claims_a_client_that_is_there_is_not_asked_and_said_once(caplog):
    grid = ComingAndGoing(["a", "a"])
    roster = roster_of(grid, 1)
    grid.online = set(grid.all)
    with caplog.at_level(logging.WARNING, logger="server.roster"):
        for _ in range(4):
            settled(roster, grid)
    assert roster.nodes == {"a": grid.all[0]}
    assert caplog.text.count("client-id='a' must be unique") == 1

    grid.online.remove(grid.all[0])
    settled(roster, grid)
    assert roster.nodes == {"a": grid.all[1]}


def test_a_client_whom_two_new_nodes_claim_is_given_to_neither():
    grid = ComingAndGoing(["a", "twin", "twin"])
    roster = roster_of(grid, 1)
    grid.online = set(grid.all)
    settled(roster, grid)
    assert set(roster.nodes) == {"a"}


def test_a_node_that_gives_no_id_is_asked_again_and_not_at_every_look(monkeypatch):
    grid = ComingAndGoing(["a", None])
    roster = roster_of(grid, 1)
    grid.online = set(grid.all)
    for _ in range(5):
        settled(roster, grid)
    assert grid.questions == 1

    grid.client_ids[1] = "b"  # its guard is up now
    monkeypatch.setattr("server.roster.ANSWER_PATIENCE_SECONDS", 0.0)
    settled(roster, grid)
    assert set(roster.nodes) == {"a", "b"}


@pytest.mark.parametrize("client_id", ["", "x" * 65, 7, b"a"])
def test_what_is_no_client_id_is_no_client(client_id):
    grid = ComingAndGoing(["a", client_id])
    roster = roster_of(grid, 1)
    grid.online = set(grid.all)
    settled(roster, grid)
    assert set(roster.nodes) == {"a"}


def test_whoever_joins_stands_where_the_order_of_ids_has_it():
    grid = ComingAndGoing(["b", "c", "a"])
    roster = roster_of(grid, 2)
    assert [roster[i] for i in range(len(roster))] == ["b", "c"]
    grid.online = set(grid.all)
    settled(roster, grid)
    assert [roster[i] for i in range(len(roster))] == ["a", "b", "c"]
    assert roster.node_id("a") == grid.all[2]
