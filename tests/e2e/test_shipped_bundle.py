"""A server that ships a hostile client app: real SuperLink, SuperNodes and guards on loopback."""

import json
import shutil
from pathlib import Path

import pytest

from deploy.federation import Security, running
from deploy.flower_commands import copy_app
from deploy.keep_running import keep_running
from deploy.loopback import make_devices
from fed_gswgan.device.guard import FAILURES
from fed_gswgan.privacy.mechanism import grid_step
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.messages import Request, decode_release
from tests.e2e.chaos import SETTINGS, answered

NAMES = ["device-0", "device-1"]
UNPICKLED = Path("/tmp/fed-gswgan-unpickled")


@pytest.mark.slow
def test_a_shipped_client_app_gets_one_release_and_refusals(tmp_path):
    app = copy_app(tmp_path / "hostile")
    (app / "client" / "app.py").rename(app / "client" / "honest.py")
    shutil.copy(Path(__file__).with_name("greedy_client.py"), app / "client" / "app.py")
    settings = SETTINGS | {"max-clients": 2, "cohort-size": 2, "rounds": 1}
    make_devices(tmp_path / "nodes", NAMES, settings)
    UNPICKLED.unlink(missing_ok=True)
    with running(tmp_path, NAMES, Security()) as federation:

        def submit(run_config):
            federation.submit(run_config, app)

        keep_running(submit, federation.run_folder, settings, federation.restart_ended)
        counts = answered(federation)

    (line,) = read_rounds(federation.run_folder)
    assert (line["received"], line["malformed"], line["stepped"]) == (0, 2, False)
    assert counts == dict.fromkeys(NAMES, 1)
    assert not UNPICKLED.exists()
    for name in NAMES:
        assert not (tmp_path / "nodes" / name / "device" / FAILURES).exists()
        found = json.loads((tmp_path / "nodes" / name / "found.json").read_text())
        answers = {name: bytes.fromhex(answer) for name, answer in found.items()}
        request = Request.decode(answers.pop("request"))
        release, again = (
            answers.pop("honest"),
            answers.pop("honest again, to average the noise out"),
        )
        assert release == again
        noise = decode_release(release, request) * grid_step(request.event)
        assert noise.std() == pytest.approx(2.14, rel=6 / (2 * noise.size) ** 0.5)
        assert len(answers) == 11
        for answer in answers.values():
            with pytest.raises(MalformedInput):
                decode_release(answer, request)
