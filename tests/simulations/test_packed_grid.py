"""Packs of clients over a Grid in this process: what each side sees, and who refuses them."""

import json
import os
import time

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from rich.console import Console

from client.app import app as client_app
from fed_gswgan.config import Config
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER, VirtualClients
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import CLIENT_FAILED, TRAIN
from server.app import run_server
from simulations.in_process_grid import InProcessGrid
from simulations.packed_grid import PACK, PackedClientApp, PackedGrid
from tests.conftest import SMALL
from tests.simulations.test_resume import reservations, same, weights


class Carrying(InProcessGrid):
    """Carries packs as Flower's Grid does, and remembers how many clients each had."""

    def __init__(self, app, carriers):
        super().__init__(app, carriers, {})
        self.sizes, self.kinds = [], set()

    def push_messages(self, messages):
        messages = list(messages)
        self.sizes.append([len(m.content["pack"]["node-ids"]) for m in messages])
        self.kinds |= {m.metadata.message_type for m in messages}
        return super().push_messages(messages)


@pytest.fixture
def packed_run(tmp_path, monkeypatch):
    """Return a function that runs SMALL through packs; returns the folder and the carrying Grid."""

    def run(name, clients_per_message=0, carriers=2, **overrides):
        folder = tmp_path / name
        virtual_clients = VirtualClients(folder / "clients")
        monkeypatch.setenv(SIMULATION_FOLDER, str(virtual_clients.folder))
        settings = SMALL | {k.replace("_", "-"): v for k, v in overrides.items()}
        config = Config.from_run_config(settings | {"output-dir": str(folder)})
        clients = config.data.max_clients
        carrying = Carrying(PackedClientApp(clients, config.to_run_config()), carriers)
        grid = PackedGrid(carrying, carriers, clients, clients_per_message)
        console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
        run_server(grid, config, virtual_clients, "packed", lambda: False, console)
        return folder, carrying

    return run


def test_a_run_in_packs_is_the_run_without_them(small_run, packed_run):
    whole = small_run("whole")
    packed, carrying = packed_run("packed")

    assert same(weights(whole), weights(packed))
    assert reservations(whole) == reservations(packed)
    for one, other in zip(read_rounds(whole), read_rounds(packed), strict=True):
        for key in ("asked", "received", "failed", "downlink_bytes", "uplink_bytes"):
            assert one[key] == other[key]
    counts = [json.loads((f / "summary.json").read_text())["bytes"] for f in (whole, packed)]
    assert counts[0] == counts[1]
    assert carrying.kinds == {PACK}
    assert carrying.sizes == [[2, 2]] + [[2, 1]] * 4  # registration, then four rounds


@pytest.mark.parametrize(("most", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (9, [3])])
def test_no_pack_has_more_clients_than_were_asked_for(packed_run, most, sizes):
    _, carrying = packed_run("run", most, rounds=1)

    assert carrying.sizes[-1] == sizes


def test_each_clients_refusal_is_its_own(packed_run):
    """One ledger is gone: that client alone refuses, whoever shares its pack."""
    settings = {"cohort_size": 4, "rounds": 2}

    folder, _ = packed_run("run", **(settings | {"rounds": 1}))
    (folder / "clients" / "client-00002" / "ledger.jsonl").unlink()
    packed_run("run", **settings, resume=True)

    lines = read_rounds(folder)
    assert [(line["received"], line["failed"]) for line in lines] == [(4, 0), (3, 1)]
    assert {client: len(rounds) for client, rounds in reservations(folder).items()} == {
        "client-00000": 2, "client-00001": 2, "client-00003": 2,
    }  # fmt: skip


def grid_of(app, clients=3):
    return PackedGrid(InProcessGrid(app, 1, {}), 1, clients, 0)


def asked(grid):
    content = RecordDict({"config": ConfigRecord({"x": 1})})
    return [Message(content, node_id, "query.echo") for node_id in grid.get_node_ids()]


def test_a_pack_that_fails_is_a_failure_of_each_of_its_clients():
    def fails(message, context):
        return Message(Error(1003, "the actor died"), reply_to=message)

    grid = grid_of(fails)
    replies = list(grid.send_and_receive(asked(grid)))

    assert [reply.error.reason for reply in replies] == ["the actor died"] * 3
    assert {reply.metadata.src_node_id for reply in replies} == set(grid.get_node_ids())


def test_an_error_in_a_pack_keeps_its_code_and_its_reason(monkeypatch, tmp_path):
    monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    grid = grid_of(PackedClientApp(3, Config.from_run_config(SMALL).to_run_config()))
    messages = asked(grid)
    for message in messages:
        message.metadata.message_type = TRAIN

    replies = grid.send_and_receive(messages)

    assert [reply.error.code for reply in replies] == [CLIENT_FAILED] * 3
    assert all("client failed" in reply.error.reason for reply in replies)


def test_a_reply_that_nobody_pulled_in_its_time_to_live_is_dropped():
    def fails(message, context):
        return Message(Error(1003, "the actor died"), reply_to=message)

    grid = grid_of(fails)
    messages = asked(grid)
    for message in messages[:2]:
        message.metadata.ttl = 0.2
    ids = list(grid.push_messages(messages))
    assert list(grid.pull_messages([])) == []  # the pack is opened
    time.sleep(0.3)
    list(grid.send_and_receive(asked(grid)))

    left = list(grid.pull_messages(ids))
    assert [reply.metadata.reply_to_message_id for reply in left] == ids[2:]


def test_nobody_is_there_before_all_carriers_are():
    few = PackedGrid(InProcessGrid(client_app, 1, {}), 2, 3, 0)
    assert list(few.get_node_ids()) == []


def test_a_real_device_refuses_a_pack(tmp_path, monkeypatch):
    """The app that devices run knows no packs: nobody can be asked through another."""
    monkeypatch.setenv(SIMULATION_FOLDER, str(tmp_path))
    grid = PackedGrid(InProcessGrid(client_app, 1, dict(SMALL)), 1, 3, 0)

    replies = list(grid.send_and_receive(asked(grid)))

    assert [reply.has_error() for reply in replies] == [True] * 3
    assert list(tmp_path.iterdir()) == []
