"""A run that ends early, by Ctrl-C or by SIGKILL, goes on to the very same generator."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from client.app import app as client_app
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.checkpoint import Checkpoint
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import TRAIN
from tests.conftest import SMALL


def weights(folder: Path) -> dict:
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    return load_file(folder / "checkpoint" / index["tensors"])


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


def ledger_lines(folder: Path) -> dict[str, list[str]]:
    paths = sorted((folder / "clients").glob("*/ledger.jsonl"))
    return {path.parent.name: path.read_text().splitlines() for path in paths}


def reservations(folder: Path) -> dict[str, list[int]]:
    return {
        client: [json.loads(line)["entry"]["server_round"] for line in lines[1:]]
        for client, lines in ledger_lines(folder).items()
    }


class StopAfter:
    """Interrupts as Ctrl-C does, once so many questions were asked."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_two_runs_with_one_seed_agree_and_another_seed_does_not(small_run):
    first, second, other = small_run("a"), small_run("b"), small_run("c", seed=1)

    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("questions", [4, 7, 10])
def test_an_interrupted_run_resumes_to_the_same_generator(small_run, questions):
    whole = small_run("whole", rounds=6)
    cut = small_run("cut", rounds=6, interrupted=StopAfter(questions))
    stopped_at = Checkpoint(cut).progress().server_round
    assert 0 < stopped_at < 6
    assert not (cut / "summary.json").exists()

    small_run("cut", rounds=6, resume=True)

    assert same(weights(whole), weights(cut))
    assert reservations(whole) == reservations(cut)
    assert [r["server_round"] for r in read_rounds(cut)] == [1, 2, 3, 4, 5, 6]
    byte_counts = [json.loads((f / "summary.json").read_text())["bytes"] for f in (whole, cut)]
    assert byte_counts[0] == byte_counts[1]


def test_an_interrupted_rounds_bytes_are_not_in_the_checkpoint(small_run):
    stop = []

    def interrupt_in_round_three(message, context):
        if message.metadata.message_type == TRAIN and message.metadata.group_id == "3":
            stop.append(True)
        return client_app(message, context)

    cut = small_run("cut", app=interrupt_in_round_three, interrupted=lambda: bool(stop))

    progress = Checkpoint(cut).progress()
    assert progress.server_round == 2
    assert (progress.byte_meter["requests"], progress.byte_meter["replies"]) == (6, 6)
    lines = read_rounds(cut)
    for direction in ("downlink", "uplink"):
        counted = progress.byte_meter[f"{direction}_total"]
        assert counted == sum(line[f"{direction}_bytes"] for line in lines)


def test_a_run_interrupted_before_its_first_round_is_a_run_to_resume(small_run):
    whole = small_run("whole")
    cut = small_run("cut", interrupted=lambda: True)
    assert not Checkpoint(cut).exists()

    small_run("cut", resume=True)

    assert same(weights(whole), weights(cut))
    assert reservations(whole) == reservations(cut)


def test_a_run_whose_own_count_is_gone_does_not_go_on(small_run):
    folder = small_run(rounds=2)
    (folder / "asked.jsonl").unlink()

    with pytest.raises(LedgerUnavailable, match=r"asked\.jsonl"):
        small_run(rounds=4, resume=True)

    assert len(read_rounds(folder)) == 2
    assert not (folder / "asked.jsonl").exists()


def test_a_longer_run_is_the_shorter_one_gone_on(small_run):
    whole = small_run("whole", rounds=6)
    short = small_run("short", rounds=3)

    small_run("short", rounds=6, resume=True)

    assert same(weights(whole), weights(short))


def test_checkpoints_some_rounds_apart_resume_to_the_same_generator(small_run):
    """Rounds after the checkpoint run again: same weights, and what was forgotten costs again."""
    whole = small_run("whole", rounds=7)
    cut = small_run("cut", rounds=5, checkpoint_every=3)
    _forget_checkpoints_after(cut, 3, small_run)

    small_run("cut", rounds=7, checkpoint_every=3, resume=True)

    assert same(weights(whole), weights(cut))
    for client, rounds in reservations(whole).items():
        assert set(rounds) <= set(reservations(cut)[client])


def _forget_checkpoints_after(folder: Path, server_round: int, small_run) -> None:
    """Put back the checkpoint of an earlier round, as a crash between two checkpoints leaves it."""
    assert Checkpoint(folder).progress().server_round > server_round
    earlier = small_run("earlier", rounds=server_round)
    for path in (folder / "checkpoint").iterdir():
        path.unlink()
    for path in (earlier / "checkpoint").iterdir():
        (folder / "checkpoint" / path.name).write_bytes(path.read_bytes())


def test_a_run_killed_in_the_middle_of_a_round_loses_nothing(tmp_path, small_run):
    rounds = 40
    whole = small_run("whole", rounds=rounds)
    killed = tmp_path / "killed"
    settings = {**SMALL, "rounds": rounds}
    command = [sys.executable, "-m", "simulations.run", "--runtime", "in-process", "--workers", "1"]
    for key, value in settings.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    process = subprocess.Popen(
        [*command, "--output", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait_for_rounds(killed, 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = ledger_lines(killed)
    finished = len(read_rounds(killed))
    assert 5 <= finished < rounds

    small_run("killed", rounds=rounds, resume=True)

    assert same(weights(whole), weights(killed))
    for client, lines in ledger_lines(killed).items():
        assert lines[: len(before.get(client, []))] == before.get(client, [])
        extra = len(reservations(killed)[client]) - len(reservations(whole)[client])
        assert 0 <= extra <= 1  # a reservation whose reply was lost is charged again


def _wait_for_rounds(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    path = folder / "rounds.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
