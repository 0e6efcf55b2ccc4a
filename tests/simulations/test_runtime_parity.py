"""Every engine: one algorithm, so the same generator, bytes and ledgers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import SMALL, read_rounds

ENGINES = {
    "ray": ["--runtime", "ray"],
    "in-process": ["--runtime", "in-process", "--workers", "1"],
    "two workers": ["--runtime", "in-process", "--workers", "2"],
}
OTHERS = [name for name in ENGINES if name != "in-process"]
PUBLIC_COUNTS = ("asked", "received", "failed", "malformed", "downlink_bytes", "uplink_bytes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run five rounds on each engine, each in a process of its own as a user would."""
    folders = {}
    for name, options in ENGINES.items():
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        command = [sys.executable, "-m", "simulations.run", *options]
        for key, value in {**SMALL, "rounds": 5}.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        done = subprocess.run(
            [*command, "--output", str(folders[name])],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folders


def tensors(folder: Path) -> dict:
    (path,) = (folder / "checkpoint").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("name", OTHERS)
def test_the_generator_is_the_same_to_the_bit(runs, name):
    one, other = tensors(runs["in-process"]), tensors(runs[name])

    assert one.keys() == other.keys()
    assert all(one[key].equal(other[key]) for key in one)


@pytest.mark.parametrize("name", OTHERS)
def test_the_bytes_are_the_same(runs, name):
    for first, second in zip(*map(read_rounds, (runs["in-process"], runs[name])), strict=True):
        assert {k: first[k] for k in PUBLIC_COUNTS} == {k: second[k] for k in PUBLIC_COUNTS}
    assert summary(runs["in-process"])["bytes"] == summary(runs[name])["bytes"]


@pytest.mark.parametrize("name", OTHERS)
def test_the_ledgers_are_the_same(runs, name):
    assert entries(runs["in-process"]) == entries(runs[name])
    assert sum(map(len, entries(runs[name]).values())) == 4 + 5 * 3


def entries(folder: Path) -> dict[str, list[dict]]:
    found = {}
    for path in sorted((folder / "clients").glob("*/ledger.jsonl")):
        lines = [json.loads(line)["entry"] for line in path.read_text().splitlines()]
        for line in lines:
            # The name of the experiment, and so the hash of its requests, is each run's own.
            line.pop("experiment_id", None)
            line.pop("request_hash", None)
            line.pop("unix_seconds", None)  # and so is the time
        found[path.parent.name] = lines
    return found


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("name", OTHERS)
def test_the_epsilons_are_the_same(runs, name):
    assert summary(runs["in-process"])["privacy"] == summary(runs[name])["privacy"]
    assert summary(runs[name])["privacy"]["seeded_noise"] is True
