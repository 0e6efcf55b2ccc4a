"""Twenty forged messages through real gRPC: ten replies to a server, ten requests to a device."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from deploy.app_folder import copy_app
from deploy.chaos import SETTINGS, answered
from deploy.devices import make_devices
from deploy.federation import Security, running
from deploy.keep_running import keep_running
from fed_gswgan.reporting.round_log import read_rounds
from tests.server.forged_replies import SENT_OVER_GRPC, named

TESTS = Path(__file__).parents[1]
NAMES = ["device-0", "device-1", "device-2"]
PATIENCE_SECONDS = 300.0
REASONS = {
    "hardly any noise": "REQUEST_EXCEEDS_POLICY: noise-stddev",
    "no noise": "MALFORMED_INPUT: noise-stddev",
    "a larger bound": "REQUEST_EXCEEDS_POLICY: clipping-bound",
    "no clipping": "MALFORMED_INPUT: clipping",
    "a seed for the noise": "MALFORMED_INPUT: ",
    "more rows": "REQUEST_EXCEEDS_POLICY: ",
    "pixels that are none": "MALFORMED_INPUT: ",
    "a pickle": "MALFORMED_INPUT: ",
    "a metric beside it": "MALFORMED_INPUT: ",
    "an update without noise": "REQUEST_EXCEEDS_POLICY: ",
}
RELAY_REFUSES = {"a pickle", "a metric beside it"}  # neither has a place in a frame


@pytest.fixture
def settings():
    return SETTINGS | {"max-clients": 3, "cohort-size": 3, "rounds": 6}


def ledgers(federation):
    return {name: (federation.device_folder(name) / "ledger.jsonl").read_bytes() for name in NAMES}


@pytest.mark.slow
def test_ten_forged_replies_are_dropped_by_name_and_an_honest_device_goes_on(tmp_path, settings):
    app = copy_app(tmp_path / "hostile")
    (app / "client" / "app.py").rename(app / "client" / "honest.py")
    shutil.copy(TESTS / "deploy" / "hostile_client.py", app / "client" / "app.py")
    shutil.copy(TESTS / "server" / "forged_replies.py", app / "client" / "forged_replies.py")
    make_devices(tmp_path / "nodes", NAMES, settings)
    with running(tmp_path, NAMES, Security()) as federation:

        def submit(run_config):
            federation.submit(run_config, app)

        keep_running(submit, federation.run_folder, settings, federation.restart_ended)
        counts = answered(federation)

    log = (federation.run_folder / "run.log").read_text()
    rounds = read_rounds(federation.run_folder)
    seen = [(r["received"], r["malformed"], r["failed"], r["stepped"]) for r in rounds]
    assert seen == [*[(1, 2, 0, True)] * 5, (1, 0, 2, True)]
    assert counts == {"device-0": 6, "device-1": 0, "device-2": 0}
    for sender in NAMES[1:]:
        assert f"round 6: {sender}: reply that cannot be read" in log
    for number, kind in enumerate(SENT_OVER_GRPC):
        server_round, sender = number // 2 + 1, NAMES[number % 2 + 1]
        said = [line for line in log.splitlines() if f"round {server_round}: {sender}: " in line]
        assert len(said) == 1, (kind, log)
        assert named(kind, said[0]), (kind, said)


@pytest.mark.slow
def test_ten_forged_requests_are_refused_by_name_and_cost_nobody_anything(tmp_path, settings):
    app = copy_app(tmp_path / "hostile")
    shutil.copy(TESTS / "deploy" / "hostile_server.py", app / "server" / "app.py")
    make_devices(tmp_path / "nodes", NAMES, settings)
    output = tmp_path / "found.json"
    with running(tmp_path, NAMES, Security()) as federation:
        before = ledgers(federation)
        federation.submit({"output-dir": str(output)}, app)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not output.exists():
            assert time.monotonic() < deadline, federation.superlink.last_lines()
            time.sleep(0.5)
        after = ledgers(federation)
        logs = "".join(guard.log.read_text() for guard in federation.guards.values())

    found = json.loads(output.read_text())
    assert found.keys() == REASONS.keys()
    for kind, reason in REASONS.items():
        assert found[kind].startswith(reason), (kind, found[kind])
    assert after == before
    for kind in found.keys() - RELAY_REFUSES:
        assert f" WARNING refused uid {os.getuid()}: {found[kind]}\n" in logs, kind
