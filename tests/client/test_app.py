import json
import logging
import shutil

import pytest

from client import virtual_device
from client.app import app as client_app
from client.virtual_device import client_id_of
from fed_gswgan.config import Config
from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.privacy.refusals import LedgerUnavailable, MalformedInput
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.byte_meter import ByteMeter
from fed_gswgan.wire.message_types import CLIENT_FAILED, REGISTER, TRAIN
from server.presence import RunStalled
from server.registration import register_clients
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


@pytest.fixture
def contexts(tmp_path, monkeypatch):
    """Return a function (nodes) -> their contexts, in a process that simulates 4 clients."""
    monkeypatch.setenv(SIMULATION_FOLDER, str(tmp_path / "clients"))
    settings = Config.from_run_config(SMALL).to_run_config()

    def contexts_of(nodes):
        grid = InProcessGrid(client_app, nodes, settings)
        return [grid.context(node_id) for node_id in grid.get_node_ids()]

    return contexts_of


def test_a_client_id_is_that_of_the_partition_and_stable(contexts):
    assert [client_id_of(context) for context in contexts(2)] == ["client-00000", "client-00001"]


def test_a_node_without_a_partition_is_an_error_that_says_so(contexts):
    (context,) = contexts(1)
    context.node_config.pop("partition-id")

    with pytest.raises(ValueError, match="partition-id=None"):
        client_id_of(context)


@pytest.mark.parametrize("partition_id", [-1, 4])
def test_a_partition_that_nobody_holds_is_an_error_that_says_so(contexts, partition_id):
    (context,) = contexts(1)
    context.node_config["partition-id"] = partition_id

    with pytest.raises(ValueError, match=f"partition-id={partition_id} must be >= 0 and < 4"):
        client_id_of(context)


def test_nodes_beyond_the_clients_are_left_out_and_their_answer_tells_nothing(
    contexts, tmp_path, caplog
):
    settings = dict(contexts(1)[0].run_config)
    (tmp_path / "clients").mkdir()
    with caplog.at_level(logging.WARNING, logger="server.roster"):
        nodes = register_clients(InProcessGrid(client_app, 6, settings), ByteMeter(), 6, 10)

    assert list(nodes) == [f"client-0000{number}" for number in range(4)]
    said = [r.getMessage() for r in caplog.records if r.name == "server.roster"]
    assert len(said) == 2
    assert all("client failed; see its own log" in line for line in said)
    assert "partition-id=5 must be" in (tmp_path / "clients" / "failures.log").read_text()


def ledgers(folder):
    return sorted(path.parent.name for path in (folder / "clients").glob("*/ledger.jsonl"))


def test_the_population_is_there_before_anybody_registers_and_a_ledger_from_the_first_request(
    small_run, tmp_path
):
    seen = {REGISTER: [], TRAIN: []}

    def look(message, context):
        kind = message.metadata.message_type
        before = ledgers(tmp_path / "run")
        assert (tmp_path / "run" / "clients" / "population").exists()
        reply = client_app(message, context)
        seen[kind].append(len(ledgers(tmp_path / "run")) - len(before))
        return reply

    small_run(rounds=1, cohort_size=3, app=look)

    assert seen == {REGISTER: [0] * 4, TRAIN: [1] * 3}


def test_a_resumed_run_makes_no_ledger_again_and_its_client_refuses(small_run):
    folder = small_run(cohort_size=4, rounds=1)
    (folder / "clients" / "client-00002" / "ledger.jsonl").unlink()

    meddler = Meddler(lambda message, context: None)
    small_run(cohort_size=4, rounds=2, resume=True, app=meddler)

    assert "client-00002" not in ledgers(folder)
    assert [reply.error.code for reply in meddler.replies if reply.has_error()] == [
        LedgerUnavailable.code
    ]
    assert [line["failed"] for line in read_rounds(folder)] == [0, 1]


def test_a_malformed_request_is_refused_by_name_and_charged_to_nobody(small_run):
    def drop_labels(message, context):
        message.content["arrays"].pop("labels", None)  # all messages share one record here

    meddler = Meddler(drop_labels)
    folder = small_run(rounds=1, app=meddler)

    assert {reply.error.code for reply in meddler.replies} == {MalformedInput.code}
    assert all("labels" in reply.error.reason for reply in meddler.replies)
    for path in (folder / "clients").glob("*/ledger.jsonl"):
        assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("gone", ["*/ledger.jsonl", "client-*", "population"])
def test_a_client_whose_ledger_is_gone_refuses(small_run, tmp_path, gone):
    def remove(message, context):
        if int(message.metadata.group_id) > 1:
            for path in (tmp_path / "run" / "clients").glob(gone):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            # As in another process, which has no client open yet.
            virtual_device._opened.cache_clear()

    remover = Meddler(remove)
    small_run("run", rounds=3, cohort_size=4, app=remover)

    assert [reply.has_error() for reply in remover.replies] == [False] * 4 + [True] * 8
    assert {reply.error.code for reply in remover.replies[4:]} == {LedgerUnavailable.code}
    assert len(ledgers(tmp_path / "run")) == (4 if gone == "population" else 0)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["privacy"]["epsilon_from"] == "the server's count"
    assert summary["privacy"]["epsilon_max"] == summary["privacy"]["epsilon_server_bound"] > 0
    assert summary["privacy"]["epsilon_median"] is None


SECRET = "the writer has 17 images of a 3"


def fail(*arguments):
    raise ZeroDivisionError(SECRET)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_failure_before_the_reservation_tells_nothing_and_is_in_the_devices_own_log(
    small_run, caplog, monkeypatch
):
    monkeypatch.setattr("fed_gswgan.device.guard.check_request", fail)
    meddler = Meddler(lambda message, context: None)
    with caplog.at_level(logging.WARNING):
        folder = small_run(rounds=1, app=meddler)

    assert [reply.error.code for reply in meddler.replies] == [CLIENT_FAILED] * 3
    assert {reply.error.reason for reply in meddler.replies} == {"client failed; see its own log"}
    (line,) = read_rounds(folder)
    assert (line["received"], line["failed"], line["stepped"]) == (0, 3, False)
    log = folder / "clients" / "failures.log"
    assert log.read_text().count(f"ZeroDivisionError: {SECRET}") == 3
    assert log.stat().st_mode & 0o077 == 0
    assert any(str(log) in warning for warning in warnings_of(caplog))


@pytest.mark.parametrize("place", ["sample_gradient", "train_critic", "load_partition"])
def test_a_failure_after_the_reservation_looks_like_any_reply(
    small_run, caplog, monkeypatch, place
):
    loads = place == "load_partition"
    module = "client.virtual_device" if loads else "fed_gswgan.device.guard"
    monkeypatch.setattr(f"{module}.{place}", fail)
    meddler = Meddler(lambda message, context: None)
    with caplog.at_level(logging.WARNING):
        folder = small_run(rounds=1, cohort_size=4, app=meddler)

    (line,) = read_rounds(folder)
    assert (line["received"], line["failed"], line["stepped"]) == (4, 0, True)
    for reply in meddler.replies:
        assert set(reply.content["arrays"]) == {"sanitized-gradient"}
        noise = reply.content["arrays"]["sanitized-gradient"].numpy()
        assert noise.std() == pytest.approx(2.14, rel=0.05)
    logs = sorted((folder / "clients").glob("*/failures.log"))
    assert len(logs) == 4
    for log in logs:
        assert f"ZeroDivisionError: {SECRET}" in log.read_text()
        assert len((log.parent / "ledger.jsonl").read_text().splitlines()) == 2  # it was charged
        assert any(str(log) in warning for warning in warnings_of(caplog))
    assert SECRET not in "".join(warnings_of(caplog))


def test_a_run_that_nobody_answers_names_the_log_that_says_why(
    small_run, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("fed_gswgan.device.guard.check_request", fail)
    with caplog.at_level(logging.WARNING), pytest.raises(RunStalled):
        small_run(rounds=9)

    log = tmp_path / "run" / "clients" / "failures.log"
    assert any(str(log) in warning for warning in warnings_of(caplog))


def test_a_run_without_failures_names_no_log(small_run, caplog):
    with caplog.at_level(logging.WARNING):
        folder = small_run(rounds=1)

    assert not list((folder / "clients").rglob("failures.log"))
    assert not any("failures.log" in warning for warning in warnings_of(caplog))


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
