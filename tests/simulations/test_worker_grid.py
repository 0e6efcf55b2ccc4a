"""Clients served by real worker processes: who serves whom, in which order, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fed_gswgan.reporting.round_log import read_rounds
from simulations.worker_grid import WorkerGrid
from tests.conftest import SMALL
from tests.simulations.echoing_app import load


@pytest.fixture(scope="module")
def grid():
    with closing(WorkerGrid(4, {"rounds": 7}, 2, load)) as grid:
        yield grid


def messages(grid, nodes, kind="query.echo", seconds=0.0):
    content = RecordDict({"config": ConfigRecord({"seconds": seconds})})
    node_ids = list(grid.get_node_ids())
    return [Message(content, node_ids[node], kind) for node in nodes]


def configs(replies):
    return [reply.content["config"] for reply in replies]


def test_every_client_is_answered_under_its_own_context(grid):
    asked = messages(grid, range(4))

    replies = list(grid.send_and_receive(asked))

    assert sorted(c["partition"] for c in configs(replies)) == [0, 1, 2, 3]
    assert all(c["rounds"] == 7 for c in configs(replies))
    by_message = {reply.metadata.reply_to_message_id: reply for reply in replies}
    for message in asked:
        reply = by_message[message.metadata.message_id]
        assert reply.metadata.src_node_id == message.metadata.dst_node_id


def test_a_message_to_nobody_is_answered_by_an_error_and_the_others_are_served(grid):
    content = RecordDict({"config": ConfigRecord({"seconds": 0.0})})
    asked = [Message(content, 99, "query.echo"), *messages(grid, [1])]
    replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(asked)}

    assert [replies[m.metadata.message_id].has_error() for m in asked] == [True, False]


def test_the_clients_are_served_by_as_many_other_processes_as_were_asked_for(grid):
    served_by = {
        c["pid"] for c in configs(grid.send_and_receive(messages(grid, range(4), seconds=0.2)))
    }

    assert len(served_by) == 2
    assert os.getpid() not in served_by


def test_a_dead_worker_is_named_with_the_client_it_served():
    error = pytest.raises(ChildProcessError, match=r"partition-id=\d;")
    with closing(WorkerGrid(4, {}, 2, load)) as grid, error:
        grid.send_and_receive(messages(grid, range(4), "query.die"))


def test_a_reply_that_nobody_pulled_in_its_time_to_live_is_dropped(grid):
    straggler, other = messages(grid, [0, 1], seconds=0.2)
    straggler.metadata.ttl = 0.1
    grid.send_and_receive([straggler, other], timeout=0.0)
    grid.send_and_receive(messages(grid, [0, 1]))  # by now both have answered

    list(grid.push_messages([]))

    late, kept = straggler.metadata.message_id, other.metadata.message_id
    assert [r.metadata.reply_to_message_id for r in grid.pull_messages([late, kept])] == [kept]


def test_one_clients_messages_are_answered_one_after_the_other_in_order(grid):
    asked = messages(grid, [2] * 5 + [3], seconds=0.05)
    replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(asked)}

    answered = configs(replies[message.metadata.message_id] for message in asked[:5])
    first = answered[0]["served-before"]
    assert [c["served-before"] for c in answered] == list(range(first, first + 5))
    assert [c["moment"] for c in answered] == sorted(c["moment"] for c in answered)


def test_a_reply_is_pulled_once_and_only_when_it_is_there(grid):
    ids = list(grid.push_messages(messages(grid, [0], seconds=0.3)))

    assert list(grid.pull_messages(ids)) == []
    deadline = time.monotonic() + 20
    while not (pulled := list(grid.pull_messages(ids))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(pulled) == 1
    assert list(grid.pull_messages(ids)) == []


def test_a_client_that_raises_becomes_an_error_reply_without_its_text(grid):
    (reply,) = grid.send_and_receive(messages(grid, [0], "query.fail"))

    assert reply.has_error()
    assert "secret" not in reply.error.reason


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_dies_is_an_error_that_says_so_and_the_others_end():
    grid = WorkerGrid(4, {}, 2, load)
    pids = [process.pid for process in grid._processes]

    with pytest.raises(ChildProcessError, match=r"ended with status 7 .* partition-id=1; .*resume"):
        grid.send_and_receive(messages(grid, [1], "query.die"))
    grid.close()

    assert not any(map(running, pids))


def test_closing_lets_the_message_at_hand_end_and_drops_the_others():
    grid = WorkerGrid(4, {}, 2, load)
    ids = set(grid.push_messages(messages(grid, [0, 1, 2, 3], seconds=0.5)))
    deadline = time.monotonic() + 60
    while len(grid._busy) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    grid.close()

    assert len(list(grid.pull_messages(ids))) == 2
    assert not any(process.is_alive() for process in grid._processes)


# A whole run in a process of its own, as a user starts it.


def command(folder: Path, **overrides: object) -> list[str]:
    words = [sys.executable, "-m", "simulations.run", "--runtime", "in-process", "--workers", "2"]
    for key, value in (SMALL | overrides).items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return [*words, "--output", str(folder)]


def started(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        command(folder, rounds=20000), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / "rounds.jsonl").exists() or len(read_rounds(folder)) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def workers_of(pid: int) -> list[int]:
    """Return the children that serve clients."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 30
    while any(map(running, pids)):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)


def test_ctrl_c_reaches_all_and_ends_the_run_saved(tmp_path):
    process = started(tmp_path / "run")
    workers = workers_of(process.pid)
    assert len(workers) == 2

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 130, said
    assert "go on with: " in said
    assert "Traceback" not in said
    index = json.loads((tmp_path / "run" / "checkpoint" / "checkpoint.json").read_text())
    assert index["progress"]["server_round"] == len(read_rounds(tmp_path / "run"))
    wait_until_gone(workers)


def test_a_killed_run_leaves_no_worker(tmp_path):
    process = started(tmp_path / "run")
    workers = workers_of(process.pid)
    assert len(workers) == 2

    process.kill()
    process.wait()

    wait_until_gone(workers)


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_line_that_says_so(tmp_path):
    process = started(tmp_path / "run")
    one, other = workers_of(process.pid)

    os.kill(one, signal.SIGKILL)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 1, said
    assert f"error: a worker process (pid {one}) ended with status -9" in said
    assert "Traceback" not in said
    wait_until_gone([other])
