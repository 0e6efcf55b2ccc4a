"""Every engine: one algorithm, so the same generator, bytes and ledgers."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fed_gswgan.reporting.round_log import read_rounds
from tests.conftest import SMALL

ENGINES = {
    "ray": ["--runtime", "ray"],
    "ray, one client a message": ["--runtime", "ray", "--clients-per-message", "1"],
    "in-process": ["--runtime", "in-process", "--workers", "1"],
    "two workers": ["--runtime", "in-process", "--workers", "2"],
    "vectorized": ["--runtime", "vectorized"],
    "vectorized, two workers": ["--runtime", "vectorized", "--workers", "2"],
}
# Cohorts of two among four: while one round is out, clients of another can answer.
IN_FLIGHT = ["--set", "rounds-in-flight=3", "--set", "cohort-size=2"]
FLYING = ("in-process", "two workers", "ray", "vectorized, two workers")
ENGINES |= {f"{name}, in flight": [*ENGINES[name], *IN_FLIGHT] for name in FLYING}
SAME_TO_THE_BIT = [
    "ray",
    pytest.param("ray, one client a message", marks=pytest.mark.slow),
    "two workers",
]
TO_ROUNDING = ["vectorized", "vectorized, two workers"]
OTHERS = [*SAME_TO_THE_BIT, *TO_ROUNDING]
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


@pytest.mark.parametrize("name", ["two workers", pytest.param("ray", marks=pytest.mark.slow)])
def test_rounds_in_flight_give_the_same_generator_and_ledgers(run_of, name):
    one, other = run_of("in-process, in flight"), run_of(f"{name}, in flight")

    assert all(tensors(one)[key].equal(tensors(other)[key]) for key in tensors(one))
    assert entries(one) == entries(other)
    assert [line["staleness"] for line in read_rounds(other)] == [0, 1, 2, 2, 2]


@pytest.mark.slow
def test_rounds_in_flight_are_the_same_to_rounding_where_critics_are_trained_at_once(run_of):
    one, other = run_of("in-process, in flight"), run_of("vectorized, two workers, in flight")

    for key, expected in tensors(one).items():
        torch.testing.assert_close(tensors(other)[key], expected, rtol=1e-5, atol=1e-5, msg=key)
    assert entries(one) == entries(other)


@pytest.mark.parametrize("name", TO_ROUNDING)
def test_the_generator_is_the_same_to_rounding_where_critics_are_trained_at_once(run_of, name):
    one, other = tensors(run_of("in-process")), tensors(run_of(name))

    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(other[key], one[key], rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", OTHERS)
def test_the_bytes_are_the_same(run_of, name):
    for first, second in zip(*map(read_rounds, (run_of("in-process"), run_of(name))), strict=True):
        assert {k: first[k] for k in PUBLIC_COUNTS} == {k: second[k] for k in PUBLIC_COUNTS}
    one, other = (summary(run_of(n))["bytes"] for n in ("in-process", name))
    # Where node ids do not follow from partitions, every client is asked who it is.
    assert one.pop("registration_total") == 0
    assert (other.pop("registration_total") > 0) == (name in REGISTERING)
    assert one == other


@pytest.mark.parametrize("name", OTHERS)
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


@pytest.mark.parametrize("name", OTHERS)
def test_the_epsilons_are_the_same(run_of, name):
    assert summary(run_of("in-process"))["privacy"] == summary(run_of(name))["privacy"]
    assert summary(run_of(name))["privacy"]["seeded_noise"] is True
