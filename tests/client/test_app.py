import json
import logging

import pytest

from client.app import app as client_app
from client.virtual_device import client_id_of
from fed_gswgan.config import Config
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.wire.messages import CLIENT_FAILED, MALFORMED_REQUEST, REFUSED, TRAIN
from simulations.in_process_grid import InProcessGrid
from tests.conftest import SMALL


class Meddler:
    """Hands every train message to a test before the real app answers it."""

    def __init__(self, meddle) -> None:
        self.meddle, self.replies = meddle, []

    def __call__(self, message, context):
        if message.metadata.message_type == TRAIN:
            self.meddle(message, context)
        reply = client_app(message, context)
        if message.metadata.message_type == TRAIN:
            self.replies.append(reply)
        return reply


def test_a_client_id_is_that_of_the_partition_and_stable():
    grid = InProcessGrid(client_app, 2, {})
    contexts = list(grid._contexts.values())

    assert [client_id_of(context) for context in contexts] == ["client-00000", "client-00001"]


def test_a_node_without_a_partition_is_an_error_that_says_so():
    (context,) = InProcessGrid(client_app, 1, {})._contexts.values()
    context.node_config.pop("partition-id")

    with pytest.raises(ValueError, match="partition-id=None"):
        client_id_of(context)


def test_a_malformed_request_is_refused_by_name_and_charged_to_nobody(small_run):
    def drop_labels(message, context):
        message.content["arrays"].pop("labels", None)  # all messages share one record here

    meddler = Meddler(drop_labels)
    folder = small_run(rounds=1, app=meddler)

    assert {reply.error.code for reply in meddler.replies} == {MALFORMED_REQUEST}
    assert all("labels" in reply.error.reason for reply in meddler.replies)
    for path in (folder / "clients").glob("*/ledger.jsonl"):
        assert len(path.read_text().splitlines()) == 1


def test_a_client_whose_ledger_is_gone_refuses(small_run, tmp_path):
    def remove(message, context):
        for path in (tmp_path / "run" / "clients").glob("*/ledger.jsonl"):
            path.unlink()

    remover = Meddler(remove)
    small_run("run", rounds=3, app=remover)

    codes = [reply.error.code if reply.has_error() else 0 for reply in remover.replies]
    assert codes[:1] == [0]  # its folder, with its ledger, is made at the first contact
    assert REFUSED in codes
    assert not list((tmp_path / "run" / "clients" / "client-00000").glob("ledger.jsonl"))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["privacy"]["epsilon_from"] == "the server's count"
    assert summary["privacy"]["epsilon_max"] == summary["privacy"]["epsilon_server_bound"]


def test_an_unexpected_failure_tells_its_kind_alone(small_run, caplog, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("the writer has 17 images of a 3")

    monkeypatch.setattr("fed_gswgan.device.guard.sample_gradient", fail)
    meddler = Meddler(lambda message, context: None)
    with caplog.at_level(logging.CRITICAL):
        small_run(rounds=1, app=meddler)

    assert [reply.error.code for reply in meddler.replies] == [CLIENT_FAILED] * 3
    assert {reply.error.reason for reply in meddler.replies} == {"client failed: ZeroDivisionError"}


def test_the_server_cannot_talk_a_real_device_into_being_simulated(monkeypatch):
    """Without the variable in its own environment no process simulates, whatever is asked."""
    monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    settings = Config.from_run_config(SMALL).to_run_config()
    grid = InProcessGrid(client_app, 1, settings)
    from flwr.app import ConfigRecord, Message, RecordDict

    request = Message(
        RecordDict({"config": ConfigRecord({"x": 1})}), next(iter(grid.get_node_ids())), TRAIN
    )
    (reply,) = grid.send_and_receive([request])

    assert reply.has_error()
    assert reply.error.code == CLIENT_FAILED


def test_a_reply_holds_the_gradient_and_nothing_else(small_run):
    meddler = Meddler(lambda message, context: None)
    small_run(rounds=1, app=meddler)

    for reply in meddler.replies:
        assert set(reply.content) == {"arrays", "config"}
        assert set(reply.content["arrays"]) == {"sanitized-gradient"}
        assert dict(reply.content["config"]) == {"server-round": 1}
