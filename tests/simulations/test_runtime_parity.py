"""Ray and in-process: one algorithm, so the same generator, bytes and ledgers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import SMALL, read_rounds

PUBLIC_COUNTS = ("asked", "received", "failed", "malformed", "downlink_bytes", "uplink_bytes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run five rounds on each runtime, each in a process of its own as a user would."""
    folders = {}
    for runtime in ("ray", "in-process"):
        folders[runtime] = tmp_path_factory.mktemp(runtime) / "run"
        command = [sys.executable, "-m", "simulations.run", "--runtime", runtime]
        for key, value in {**SMALL, "rounds": 5}.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        done = subprocess.run(
            [*command, "--output", str(folders[runtime])],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folders


def tensors(folder: Path) -> dict:
    (path,) = (folder / "checkpoint").glob("*.safetensors")
    return load_file(path)


def test_the_generator_is_the_same(runs):
    ray, here = tensors(runs["ray"]), tensors(runs["in-process"])

    assert ray.keys() == here.keys()
    for name, tensor in ray.items():
        assert (tensor - here[name]).abs().max() <= 1e-5, name


def test_the_bytes_are_the_same(runs):
    ray, here = (read_rounds(runs[name]) for name in ("ray", "in-process"))

    for first, second in zip(ray, here, strict=True):
        assert {k: first[k] for k in PUBLIC_COUNTS} == {k: second[k] for k in PUBLIC_COUNTS}
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in runs.values()]
    assert summaries[0]["bytes"] == summaries[1]["bytes"]


def test_the_ledgers_are_the_same(runs):
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

    assert entries(runs["ray"]) == entries(runs["in-process"])
    assert sum(map(len, entries(runs["ray"]).values())) == 4 + 5 * 3


def test_the_epsilons_are_the_same(runs):
    ray, here = (json.loads((f / "summary.json").read_text())["privacy"] for f in runs.values())

    assert ray == here
    assert ray["seeded_noise"] is True
