import stat
import tomllib
from pathlib import Path

import pytest

from fed_gswgan.device.device_folder import create_device, open_device
from fed_gswgan.device.device_settings import DeviceSettings, device_share, read_settings
from fed_gswgan.privacy.policy import read_policy
from fed_gswgan.privacy.refusals import LedgerUnavailable
from tests.fed_gswgan.device.served_device import TRAINING, make_device, train_request

SETTINGS = {"client_id": "alice", "data": "/data/alice"}


def test_a_device_is_its_owners_and_its_group_may_pass_through(tmp_path):
    folder = make_device(tmp_path / "device")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(
        ("device.toml", "policy.toml", "ledger.jsonl", "ledger.head"), 0o600
    )


def test_a_device_is_made_once(tmp_path):
    folder = make_device(tmp_path / "device")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for missing in (None, "device.toml", "policy.toml"):
        if missing:
            (folder / missing).rename(tmp_path / missing)
        with pytest.raises(FileExistsError):
            make_device(folder)
        if missing:
            (tmp_path / missing).rename(folder / missing)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_ledger_without_its_device_is_never_begun_anew(tmp_path):
    folder = make_device(tmp_path / "device")
    for name in ("device.toml", "policy.toml", "ledger.jsonl"):
        (folder / name).unlink()
    with pytest.raises(FileExistsError, match=r"ledger\.head: there was a ledger here"):
        make_device(folder)


def test_settings_come_back_from_their_file(tmp_path):
    settings = DeviceSettings(
        **SETTINGS, classes=("\u00e4", 'b"c', "\U0001f600"), training=TRAINING, socket="/run/a.sock"
    )
    (tmp_path / "device.toml").write_text(settings.to_toml())
    assert read_settings(tmp_path / "device.toml") == settings


def test_a_device_has_a_seed_of_its_own_unless_it_is_given_one(tmp_path):
    seeds = []
    for name in ("one", "two"):
        create_device(tmp_path / name, DeviceSettings(**SETTINGS), None)
        seeds.append(read_settings(tmp_path / name / "device.toml").training["seed"])
    assert seeds[0] != seeds[1]
    assert read_settings(make_device(tmp_path / "three") / "device.toml").training["seed"] == 3


def test_without_a_policy_a_device_gets_a_careful_one(tmp_path):
    create_device(tmp_path / "device", DeviceSettings(**SETTINGS), None)
    policy = read_policy(tmp_path / "device" / "policy.toml")
    assert (policy.max_epsilon, policy.clipping, policy.trusted_server) == (10.0, "message", False)


def test_a_policy_that_is_none_makes_no_device(tmp_path):
    with pytest.raises(ValueError, match="max-epsilon"):
        make_device(tmp_path / "device", policy="max-samples = 3")
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"client_id": ""}, "client-id=''"),
        ({"client_id": "a/b"}, "client-id='a/b'"),
        ({"client_id": "x" * 65}, "1 to 64"),
        ({"client_id": 1}, "client-id=1"),
        ({"data": "images"}, "must be an absolute path"),
        ({"data": ""}, "must be an absolute path"),
        ({"data": "/a\nb"}, "unprintable"),
        ({"socket": "guard.sock"}, "must be an absolute path"),
        ({"classes": "some"}, "classes='some'"),
        ({"classes": ()}, "1 .. 256 names"),
        ({"classes": ("a", "a")}, "each given once"),
        ({"training": {"critic-width": 0}}, "critic-width=0"),
        ({"training": {"critic": "large"}}, "critic='large'"),
        # What decides privacy is the policy's, and the noise is nobody's to choose.
        ({"training": {"noise-source": "seeded"}}, "no setting of a device"),
        ({"training": {"noise-stddev": 0.1}}, "no setting of a device"),
        ({"training": {"max-epsilon": 1e9}}, "no setting of a device"),
    ],
)
def test_a_setting_that_is_none_is_refused_by_name(changed, said):
    with pytest.raises(ValueError, match=said):
        DeviceSettings(**SETTINGS | changed)


@pytest.mark.parametrize(
    "text",
    ["", 'data = "/x"', 'client-id = "a"', 'noise = 1\ndata = "/x"\nclient-id = "a"',
     'client-id = "a"\ndata = "/x"\nclasses = [1]', 'client-id = "a"\ndata = "/x"\ntraining = 1'],
)  # fmt: skip
def test_a_file_that_is_no_settings_is_refused(tmp_path, text):
    (tmp_path / "device.toml").write_text(text)
    with pytest.raises(ValueError, match=r"device\.toml: "):
        read_settings(tmp_path / "device.toml")


def test_of_a_run_a_device_takes_what_it_trains_by():
    demo = tomllib.loads(Path("simulations/configs/demo.toml").read_text())
    assert device_share(demo) == {
        "critic": "mlp", "critic-width": 256, "critic-steps": 5, "critic-learning-rate": 1e-3
    }  # fmt: skip
    baseline = {"algorithm": "fedavg-gan", "clipping": "message", "batch-size": 7, "rounds": 3}
    assert device_share(baseline | {"latent-dim": 3}) == {"batch-size": 7, "latent-dim": 3}
    with pytest.raises(ValueError, match="no such setting"):
        device_share({"critic-wdth": 3})


def test_a_device_is_not_opened_without_its_own_ledger(tmp_path):
    folder = make_device(tmp_path / "device")
    (folder / "device.toml").write_text(
        (folder / "device.toml").read_text().replace("alice", "bob")
    )
    with pytest.raises(LedgerUnavailable, match="alice"):
        open_device(folder)


def test_the_noise_is_secure_whatever_the_settings_and_the_seed(tmp_path):
    replies = []
    for name in ("one", "two"):
        device = open_device(make_device(tmp_path / name / "device"))
        replies.append(device.guard.answer(train_request()).gradient.values_BCHW)
    assert (replies[0] - replies[1]).std() == pytest.approx(2.14 * 2**0.5, rel=0.1)
