"""``flwr run .`` against a SuperLink started as docs/running.md says, as real processes."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fed_gswgan.data.writers import open_writers
from fed_gswgan.privacy.ledger import Ledger

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def superlink(tmp_path):
    """Start a SuperLink that simulates, on loopback, and stop it after the test."""
    port = free_port()
    home = tmp_path / "flwr-home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_ADDRESS": "local",  # not a cluster that something else left on this machine
        "FED_GSWGAN_SIMULATION": str(tmp_path / "clients"),
    }
    # The bundle is built from a copy: a checkout may lie in a folder whose name Flower refuses.
    app = tmp_path / "fed-gswgan"
    app.mkdir()
    for name in ("fed_gswgan", "server", "client"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, app / name)
    log = (tmp_path / "superlink.log").open("w")
    process = subprocess.Popen(
        [BIN / "flower-superlink", "--simulation", "--insecure",
         "--disable-runtime-dependency-installation", "--port", str(port)],
        env=environment, cwd=app, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield app, environment
    process.terminate()
    process.wait(timeout=60)
    log.close()


def test_the_app_runs_from_its_bundle_on_the_installed_writers_and_writes_a_summary(
    superlink, tmp_path
):
    app, environment = superlink
    output = tmp_path / "run"
    settings = {
        "dataset": "writers", "classes": "digits", "max-clients": 3, "cohort-size": 3, "rounds": 2,
        "fit-steps": 4, "evaluation-samples": 0, "output-dir": str(output),
    }  # fmt: skip
    run_config = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())

    done = subprocess.run(
        [BIN / "flwr", "run", ".", "here", "--stream",
         "--federation-config", "num-supernodes=3", "--run-config", run_config],
        env=environment, cwd=app, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip

    superlink_log = (tmp_path / "superlink.log").read_text()[-3000:]
    assert (output / "summary.json").exists(), done.stdout[-3000:] + done.stderr + superlink_log
    summary = json.loads((output / "summary.json").read_text())
    assert summary["runtime"] == "flwr"
    assert summary["replies"]["received"] == 6
    assert summary["privacy"]["seeded_noise"] is False
    users = []
    for shard in (tmp_path / "clients").glob("shard-*"):
        with Ledger(shard, durable=False) as ledger:
            users += [line.user for line in ledger.lines()]
    assert sorted(users) == sorted(open_writers("digits", 1).writer_ids[:3] * 2)
