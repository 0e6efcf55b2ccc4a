"""A server that ships a hostile client app: real SuperLink, SuperNodes and guards on loopback."""

import json
import shutil
from pathlib import Path

import pytest
from tests.client.hostile_client_app import require_sanitized
from tests.client.test_hostile_bundle import CODES, UNPICKLED

from deploy.chaos import SETTINGS, answered
from deploy.devices import make_devices
from deploy.federation import Security, running
from deploy.flower_commands import copy_app
from deploy.keep_running import keep_running
from fed_gswgan.reporting.round_log import read_rounds

TESTS = Path(__file__).parents[1]
NAMES = ["device-0", "device-1"]
SHIPPED = (
    "client/hostile_client_app.py",
    "fed_gswgan/device/forged_frames.py",
    "fed_gswgan/device/served_device.py",
)


@pytest.mark.slow
def test_a_shipped_client_app_gets_sanitized_replies_and_refusals_and_nothing_else(tmp_path):
    app = copy_app(tmp_path / "hostile")
    (app / "client" / "app.py").rename(app / "client" / "honest.py")
    shutil.copy(TESTS / "deploy" / "greedy_client.py", app / "client" / "app.py")
    for name in SHIPPED:
        (app / "client" / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TESTS / name, app / "client" / "tests" / name)
    settings = SETTINGS | {"max-clients": 2, "cohort-size": 2, "rounds": 1}
    make_devices(tmp_path / "nodes", NAMES, settings)
    UNPICKLED.unlink(missing_ok=True)
    with running(tmp_path, NAMES, Security()) as federation:

        def submit(run_config):
            federation.submit(run_config, app)

        keep_running(submit, federation.run_folder, settings, federation.restart_ended)
        counts = answered(federation)
        logs = {name: guard.log.read_text() for name, guard in federation.guards.items()}

    (line,) = read_rounds(federation.run_folder)
    assert (line["received"], line["malformed"], line["stepped"]) == (0, 2, False)
    for name in NAMES:
        found = json.loads((tmp_path / "nodes" / name / "found.json").read_text())
        require_sanitized(found, CODES, logs[name])
        assert not (tmp_path / "nodes" / name / "device" / "failures.log").exists()
    assert counts == dict.fromkeys(NAMES, 1)
    assert not UNPICKLED.exists()
