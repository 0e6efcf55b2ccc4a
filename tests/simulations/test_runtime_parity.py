"""Every engine: one algorithm, so the same generator, bytes and ledgers."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fed_gswgan.reporting.round_log import read_rounds
from tests.conftest import SMALL

ENGINES = {
    "ray": ["--runtime", "ray"],
    "ray, one client a message": ["--runtime", "ray", "--clients-per-message", "1"],
    "in-process": ["--runtime", "in-process", "--workers", "1"],
    "two workers": ["--runtime", "in-process", "--workers", "2"],
}
SAME_TO_THE_BIT = [
    "ray",
    pytest.param("ray, one client a message", marks=pytest.mark.slow),
    "two workers",
]
REGISTERING = {"ray, one client a message"}
PUBLIC_COUNTS = ("asked", "received", "failed", "malformed", "downlink_bytes", "uplink_bytes")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function (engine) -> folder of its run of five rounds, in a process of its own."""

    @cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "run"
        command = [sys.executable, "-m", "simulations.run"]
        for key, value in {**SMALL, "rounds": 5}.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        done = subprocess.run(
            [*command, *ENGINES[name], "--output", str(folder)],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return run


def tensors(folder: Path) -> dict:
    (path,) = (folder / "checkpoint").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("name", SAME_TO_THE_BIT)
def test_the_generator_is_the_same_to_the_bit(run_of, name):
    one, other = tensors(run_of("in-process")), tensors(run_of(name))

    assert one.keys() == other.keys()
    assert all(one[key].equal(other[key]) for key in one)


@pytest.mark.parametrize("name", SAME_TO_THE_BIT)
def test_the_bytes_are_the_same(run_of, name):
    for first, second in zip(*map(read_rounds, (run_of("in-process"), run_of(name))), strict=True):
        assert {k: first[k] for k in PUBLIC_COUNTS} == {k: second[k] for k in PUBLIC_COUNTS}
    one, other = (summary(run_of(n))["bytes"] for n in ("in-process", name))
    # Where node ids do not follow from partitions, every client is asked who it is.
    assert one.pop("registration_total") == 0
    assert (other.pop("registration_total") > 0) == (name in REGISTERING)
    assert one == other


@pytest.mark.parametrize("name", SAME_TO_THE_BIT)
def test_the_ledgers_are_the_same(run_of, name):
    assert entries(run_of("in-process")) == entries(run_of(name))
    assert sum(map(len, entries(run_of(name)).values())) == 4 + 5 * 3


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


@pytest.mark.parametrize("name", SAME_TO_THE_BIT)
def test_the_epsilons_are_the_same(run_of, name):
    assert summary(run_of("in-process"))["privacy"] == summary(run_of(name))["privacy"]
    assert summary(run_of(name))["privacy"]["seeded_noise"] is True
