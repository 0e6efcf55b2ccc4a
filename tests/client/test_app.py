"""The relay: bytes in, bytes out, and errors that tell nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from client import app as relay
from client import shard
from fed_gswgan.device.service import GuardUnreachable
from fed_gswgan.device.shards import SIMULATION_FOLDER
from fed_gswgan.wire.message_types import (
    CHALLENGE,
    CLIENT_FAILED,
    CLIENTS,
    GUARD_UNREACHABLE,
    NAME,
    PROOF,
    RECORD,
    REGISTER,
    REPLIES,
    REQUESTS,
    TRAIN,
)

pytestmark = pytest.mark.usefixtures("task_identity")


def context(**node_config):
    return Context(
        run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config={"seed": 0}
    )


GUARDED = {"guard": "/run/guard.sock"}
SIMULATED = {"partition-id": 3, "num-partitions": 8}


def send(message_type, node_config, **record):
    content = RecordDict({RECORD: ConfigRecord(record)} if record else {})
    message = Message(content, dst_node_id=2, message_type=message_type)
    return relay.app(message, context(**node_config))


def found(reply):
    assert list(reply.content) == [RECORD]
    return dict(reply.content[RECORD])


def test_a_device_relays_bytes_to_its_guard_and_back(monkeypatch):
    """Whatever the bytes are, and whichever clients the server names."""
    asked = []
    monkeypatch.setattr(relay, "ask", lambda path, blob: asked.append((path, blob)) or b"\1\0back")
    for blob in (b"\0\xff no request", b""):
        reply = send(TRAIN, GUARDED, **{REQUESTS: [blob], CLIENTS: ["alice", "bob"]})
        assert found(reply) == {REPLIES: [b"\1\0back"]}
        assert asked.pop() == (Path("/run/guard.sock"), blob)


def test_a_device_registers_by_what_its_guard_signs(monkeypatch):
    monkeypatch.setattr(relay, "ask_for_proof", lambda path, challenge: b"signed " + challenge)
    reply = send(REGISTER, GUARDED, **{CHALLENGE: b"drawn"})
    assert found(reply) == {PROOF: b"signed drawn"}


def test_a_simulated_node_answers_for_its_shard(monkeypatch):
    asked = []
    answer = lambda blobs, clients, context: asked.append((blobs, clients)) or [b"0"] * 2  # noqa: E731
    monkeypatch.setattr(shard, "answer", answer)
    assert found(send(REGISTER, SIMULATED)) == {NAME: "shard-0003"}
    for blobs in ([b"blob"], [b"one", b"two"]):
        reply = send(TRAIN, SIMULATED, **{REQUESTS: blobs, CLIENTS: ["x", "y"]})
        assert (found(reply), asked.pop()) == ({REPLIES: [b"0", b"0"]}, (blobs, ["x", "y"]))


def unreachable(*_):
    raise GuardUnreachable("no guard answers at /secret/guard.sock: connection refused")


def broken(*_):
    raise RuntimeError("a pixel of 0.25")


REQUESTED, CHALLENGED = {REQUESTS: [b"blob"], CLIENTS: ["x"]}, {CHALLENGE: b"drawn"}
FAILURES = {
    "no guard": (unreachable, GUARDED, TRAIN, REQUESTED, GUARD_UNREACHABLE),
    "no guard to register": (unreachable, GUARDED, REGISTER, CHALLENGED, GUARD_UNREACHABLE),
    "an exception": (broken, GUARDED, TRAIN, REQUESTED, CLIENT_FAILED),
    "an exception to register": (broken, GUARDED, REGISTER, CHALLENGED, CLIENT_FAILED),
    "no challenge": (broken, GUARDED, REGISTER, {}, CLIENT_FAILED),
    "a challenge of text": (broken, GUARDED, REGISTER, {CHALLENGE: "text"}, CLIENT_FAILED),
    "no record": (broken, GUARDED, TRAIN, {}, CLIENT_FAILED),
    "no bytes": (broken, GUARDED, TRAIN, {REQUESTS: ["text"], CLIENTS: ["x"]}, CLIENT_FAILED),
    "no list": (broken, GUARDED, TRAIN, {REQUESTS: b"blob", CLIENTS: ["x"]}, CLIENT_FAILED),
    "one too many": (
        broken,
        SIMULATED,
        TRAIN,
        {REQUESTS: [b""] * 2, CLIENTS: ["x"]},
        CLIENT_FAILED,
    ),
    "no client": (broken, GUARDED, TRAIN, {REQUESTS: [b""], CLIENTS: []}, CLIENT_FAILED),
    "no shard": (broken, {}, TRAIN, REQUESTED, CLIENT_FAILED),
    "no simulation": (broken, SIMULATED, TRAIN, REQUESTED, CLIENT_FAILED),
}
TEXTS = {
    GUARD_UNREACHABLE: "GUARD_UNREACHABLE: no guard answers on the device; ask again later",
    CLIENT_FAILED: "client failed; see its own log",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_an_error_without_detail(monkeypatch, caplog, name):
    """The server learns a code and a fixed text; the device's log has the rest."""
    failing, node_config, message_type, record, code = FAILURES[name]
    monkeypatch.setattr(relay, "ask", failing)
    monkeypatch.setattr(relay, "ask_for_proof", failing)
    monkeypatch.delenv(SIMULATION_FOLDER, raising=False)
    error = send(message_type, node_config, **record).error
    assert (error.code, error.reason) == (code, TEXTS[code])
    assert caplog.records[-1].levelname == "ERROR"


def test_a_relay_process_loads_no_pytorch_and_no_mathematics():
    """Flower starts one for each message: seconds, on a small device, if it did."""
    seen = (
        "import sys, client.app\n"
        "mine = [m for m in sys.modules if m.startswith(('fed_gswgan.', 'server'))]\n"
        "print('torch' in sys.modules, sorted(m for m in mine if m.count('.') > 1))"
    )
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    modules = ["device.service", "privacy.refusals", "wire.message_types"]
    assert done.stdout == f"False {[f'fed_gswgan.{name}' for name in modules]}\n"
