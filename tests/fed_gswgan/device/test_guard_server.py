"""The socket alone: what is behind it is a function here, in this process."""

import os
import socket
import threading
import time

import numpy as np
import pytest

from fed_gswgan.device import guard_connection, guard_server
from fed_gswgan.device.guard_client import GuardUnreachable, ask_guard
from fed_gswgan.device.guard_frame import MAGIC, PREFIX, Frame, pack
from fed_gswgan.device.guard_server import GuardServer
from fed_gswgan.privacy.refusals import BudgetExhausted, LedgerLocked, MalformedInput
from tests.fed_gswgan.device.served_device import exchange

LARGEST = 2**20
SECRET = "the writer has 17 images of a 3"


def echo(request):
    return Frame(kind="reply", config=request.config, arrays=request.arrays)


@pytest.fixture
def serve(tmp_path):
    """Return a function (answer) -> path of a socket that is served until the test ends."""
    running = []

    def start(answer=echo):
        server = GuardServer(tmp_path / f"{len(running)}.sock", answer, LARGEST)
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        return tmp_path / f"{len(running) - 1}.sock"

    start.running = running
    yield start
    for server, thread in running:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


def connected(path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(30)
    peer.connect(str(path))
    return peer


def test_a_request_is_answered(serve):
    values = np.random.default_rng(0).random((5, 7))
    answer = ask_guard(serve(), Frame(kind="k", config={"x": 1}, arrays={"values": values}))
    assert (answer.kind, answer.config) == ("reply", {"x": 1})
    assert answer.arrays["values"].tobytes() == values.tobytes()


def test_a_refusal_is_told_and_logged_by_name(serve, caplog):
    def refuse(request):
        raise BudgetExhausted("max-epsilon=1 would be passed\n" + "x" * 1000)

    answer = ask_guard(serve(refuse), Frame(kind="k"))
    assert answer.kind == "refusal"
    assert answer.config["code"] == BudgetExhausted.code
    reason = answer.config["reason"]
    assert reason.startswith("BUDGET_EXHAUSTED: max-epsilon=1 would be passed?xxx")
    assert len(reason) == 300
    assert f"refused uid {os.getuid()}: BUDGET_EXHAUSTED" in caplog.text


def test_a_failure_is_told_without_its_reason(serve, caplog):
    def fail(request):
        raise ZeroDivisionError(SECRET)

    path = serve(fail)
    answer = ask_guard(path, Frame(kind="k"))
    assert vars(answer) == {"kind": "failure", "config": {}, "arrays": {}}
    assert SECRET in caplog.text
    assert ask_guard(path, Frame(kind="k")).kind == "failure"


def test_a_relay_without_a_guard_is_told_so(tmp_path):
    with pytest.raises(GuardUnreachable, match="No such file"):
        ask_guard(tmp_path / "none.sock", Frame(kind="k"))


def test_a_socket_left_by_a_dead_guard_is_replaced(serve, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "0.sock"))
    with pytest.raises(GuardUnreachable, match="refused"):
        ask_guard(tmp_path / "0.sock", Frame(kind="k"))
    assert ask_guard(serve(), Frame(kind="k")).kind == "reply"


def test_a_request_that_comes_byte_by_byte_is_answered(serve):
    with connected(serve()) as peer:
        for byte in pack(Frame(kind="k", arrays={"x": np.arange(5)})):
            peer.send(bytes([byte]))
        assert peer.recv(4) == MAGIC


def test_a_slow_peer_is_refused_and_stops_nobody(serve, monkeypatch):
    monkeypatch.setattr(guard_connection, "REQUEST_SECONDS", 0.5)
    path = serve()
    with connected(path) as slow:
        slow.send(MAGIC)
        started = time.monotonic()
        assert ask_guard(path, Frame(kind="k")).kind == "reply"
        assert time.monotonic() - started < 0.4
        told = slow.recv(1000)
        assert b"MALFORMED_INPUT: frame is not whole after 0.5 s" in told
        assert slow.recv(1) == b""


def test_a_peer_that_takes_no_answer_is_dropped_and_stops_nobody(serve, monkeypatch):
    monkeypatch.setattr(guard_connection, "ANSWER_SECONDS", 0.5)
    large = Frame(kind="reply", arrays={"x": np.zeros(2**22)})
    path = serve(lambda request: large if request.kind == "large" else echo(request))
    with connected(path) as deaf:
        deaf.sendall(pack(Frame(kind="large")))
        assert ask_guard(path, Frame(kind="k")).kind == "reply"
        time.sleep(1)
        taken = 0
        while received := len(deaf.recv(2**20)):
            taken += received
        assert taken < 2**22


def test_more_silent_peers_than_there_is_room_for_stop_nobody(serve):
    path = serve()
    silent = [connected(path) for _ in range(4 * guard_server.MOST_CONNECTIONS)]
    for _ in range(3):
        assert ask_guard(path, Frame(kind="k")).kind == "reply"
    for peer in silent:
        peer.close()
    assert ask_guard(path, Frame(kind="k")).kind == "reply"


def test_requests_that_wait_are_bounded_and_the_next_is_told_so(serve):
    go_on = threading.Event()

    def slowly(request):
        go_on.wait(30)
        return echo(request)

    path = serve(slowly)
    waiting = [connected(path) for _ in range(guard_server.MOST_CONNECTIONS)]
    for peer in waiting:
        peer.sendall(pack(Frame(kind="k")))
    ((server, _),) = serve.running
    deadline = time.monotonic() + 10
    while sum(not c.reading for c in server._connections.copy()) < len(waiting):
        assert time.monotonic() < deadline
    answer = exchange(path, pack(Frame(kind="k")))
    go_on.set()
    assert answer.config["code"] == LedgerLocked.code
    for peer in waiting:
        assert peer.recv(4) == MAGIC
        peer.close()


def test_a_request_that_ends_early_is_refused_and_a_longer_one_is_cut(serve):
    path = serve()
    frame = pack(Frame(kind="k", arrays={"x": np.arange(5)}))
    for size in (0, 1, PREFIX.size - 1, PREFIX.size, PREFIX.size + 9, len(frame) - 1):
        answer = exchange(path, frame[:size])
        assert answer.config["code"] == MalformedInput.code
        assert "ends before it is whole" in answer.config["reason"]
    assert exchange(path, frame + b"more").kind == "reply"


def test_a_body_larger_than_allowed_is_refused_by_its_length_alone(serve):
    claimed = PREFIX.pack(MAGIC, 2, LARGEST + 1)
    reason = exchange(serve(), claimed, hang_up=False).config["reason"]
    assert (
        reason == f"MALFORMED_INPUT: body of a frame has {LARGEST + 1} bytes, must be <= {LARGEST}"
    )


def test_stopping_answers_the_request_at_hand_and_refuses_those_that_wait(serve):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(request):
        begun.set()
        go_on.wait(30)
        return echo(request)

    path = serve(slowly)
    (server, thread), = serve.running  # fmt: skip
    at_hand, waits, half = connected(path), connected(path), connected(path)
    at_hand.sendall(pack(Frame(kind="k")))
    assert begun.wait(10)
    waits.sendall(pack(Frame(kind="k")))
    half.sendall(MAGIC)
    time.sleep(0.2)
    server.stop()
    assert half.recv(1) == b""
    go_on.set()
    assert b'"reply"' in at_hand.recv(1000)
    assert b"LEDGER_LOCKED" in waits.recv(1000)
    thread.join(10)
    assert not path.exists()
    for peer in (at_hand, waits, half):
        peer.close()
