import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fed_gswgan.device.folder import (
    DeviceSettings,
    create_device,
    device_share,
    open_device,
    read_settings,
)
from fed_gswgan.device.service import LONGEST_PATH_BYTES
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger
from fed_gswgan.privacy.mechanism import grid_step
from fed_gswgan.privacy.policy import read_policy
from fed_gswgan.privacy.refusals import LedgerUnavailable, RequestExceedsPolicy
from fed_gswgan.wire.messages import decode_release

SETTINGS = {"client_id": "alice", "data": "/data/alice"}


def test_only_the_owner_reads_the_files_and_the_group_passes(make_device):
    folder = make_device()
    open_device(folder)  # which takes the lock
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    names = {path.name for path in folder.iterdir()}
    assert {"device.toml", "policy.toml", LEDGER, HEAD, REPLIES} <= names
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("gone", [[], ["device.toml"], ["policy.toml"], ["device.toml", "ledger"]])
def test_a_device_is_made_once(make_device, tmp_path, gone):
    """A ledger without its device is never begun anew."""
    folder = make_device()
    for name in gone:
        for path in folder.glob(f"{name}*"):
            if path.name != HEAD:
                path.unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="it stays"):
        make_device()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_opened_device_answers_its_own_requests(make_device, first_request):
    """Its data is read for a release, and not when it is opened or refuses."""
    folder = make_device()
    data = Path(read_settings(folder / "device.toml").data)
    data.rename(data.with_suffix(".away"))
    device = open_device(folder)
    assert (device.client.client_id, device.policy.max_epsilon) == ("alice", 100.0)
    request = first_request()
    greedy = replace(request, event=replace(request.event, noise_stddev=1.0))
    with pytest.raises(RequestExceedsPolicy):
        decode_release(device.answer(greedy.encode()), greedy)
    data.with_suffix(".away").rename(data)
    steps = decode_release(device.answer(request.encode()), request)
    noise = (steps * grid_step(request.event)).std()
    assert noise == pytest.approx(2.14, rel=6 / (2 * steps.size) ** 0.5)
    with Ledger(folder) as ledger:
        assert ledger.releases()["alice"].total() == 1
    assert not (folder / "failures.log").exists()


def test_a_device_is_not_opened_with_anothers_ledger(make_device):
    folder = make_device()
    settings = folder / "device.toml"
    settings.write_text(settings.read_text().replace("alice", "bob"))
    with pytest.raises(LedgerUnavailable, match="of other clients"):
        open_device(folder)


def test_a_device_has_a_seed_of_its_own_unless_it_is_given_one(make_device, tmp_path):
    seeds = []
    for name in ("one", "two"):
        create_device(tmp_path / name, DeviceSettings(**SETTINGS), None)
        seeds.append(read_settings(tmp_path / name / "device.toml").training["seed"])
    assert seeds[0] != seeds[1]
    assert read_settings(make_device("three") / "device.toml").training["seed"] == 3


def test_without_a_policy_a_device_gets_a_careful_one(tmp_path):
    create_device(tmp_path / "device", DeviceSettings(**SETTINGS), None)
    policy = read_policy(tmp_path / "device" / "policy.toml")
    assert (policy.max_epsilon, policy.neighboring_relation) == (10.0, "replace-one")
    assert (policy.clipping, policy.max_clipping_bound, policy.min_noise_stddev) == (
        "message", 1.0, 2.14,
    )  # fmt: skip
    assert (policy.trust, policy.central_noise_stddev) == (("local",), 0.0)


@pytest.mark.parametrize(
    ("policy", "said"),
    [("max-rows = 3", "max-epsilon"), ("max-epsilon = inf", "max-epsilon"),
     ("max-epsilon = 1.0\nmax-row = 3", "did you mean max-rows"), ("[", "at end of document")],
)  # fmt: skip
def test_a_policy_that_is_none_makes_no_device(make_device, tmp_path, policy, said):
    with pytest.raises(ValueError, match=said):
        make_device(policy=policy)
    assert not (tmp_path / "device").exists()


def test_settings_come_back_from_their_file(tmp_path, training):
    settings = DeviceSettings(
        **SETTINGS, classes=("\u00e4", 'b"c', "\U0001f600"), training=training, socket="/run/a.sock"
    )
    (tmp_path / "device.toml").write_text(settings.to_toml())
    assert read_settings(tmp_path / "device.toml") == settings


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"client-id": ""}, "client-id=''"),
        ({"client-id": "a/b"}, "client-id='a/b'"),
        ({"client-id": "x" * 65}, "client-id="),
        ({"client-id": 1}, "client-id=1"),
        ({"data": "images"}, "data='images' must be an absolute path"),
        ({"data": ""}, "must be an absolute path"),
        ({"data": "/a\nb"}, "can be printed"),
        ({"socket": "guard.sock"}, "socket='guard.sock' must be an absolute path"),
        ({"classes": "some"}, "classes='some'"),
        ({"classes": ()}, "1 .. 256 names"),
        ({"classes": ("a", "a")}, "each given once"),
        ({"classes": [1]}, "classes"),
        ({"client": "alice"}, "client: no such setting; did you mean client-id?"),
        ({"training": 1}, "training=1"),
        ({"training": {"critic-width": 0}}, "critic-width=0"),
        ({"training": {"critic": "large"}}, "critic='large'"),
        ({"training": {"critic-stps": 1}}, "critic-stps: no such setting; did you mean critic-s"),
        # What decides privacy is the policy's, and no setting chooses the noise.
        ({"training": {"noise-source": "seeded"}}, "noise-source: no such setting"),
        ({"training": {"noise-stddev": 0.1}}, "noise-stddev: no such setting"),
        ({"training": {"max-epsilon": 1e9}}, "max-epsilon: no such setting"),
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_refused_by_name(changed, said):
    with pytest.raises(ValueError, match=said) as error:
        DeviceSettings.from_table(
            {"client-id": "alice", "data": "/data"} | changed, "device.toml: "
        )
    assert str(error.value).startswith("device.toml: ")


@pytest.mark.parametrize("missing", ["client-id", "data"])
def test_a_missing_setting_is_named(tmp_path, missing):
    lines = {"client-id": 'client-id = "a"', "data": 'data = "/x"'}
    (tmp_path / "device.toml").write_text(lines[{"client-id": "data"}.get(missing, "client-id")])
    with pytest.raises(ValueError, match=rf"device\.toml: {missing} must be given"):
        read_settings(tmp_path / "device.toml")


def test_a_socket_that_no_system_allows_is_refused(make_device, tmp_path):
    long = "/" + "x" * LONGEST_PATH_BYTES
    with pytest.raises(ValueError, match="has 108 bytes, must have at most 107"):
        open_device(make_device(socket=long))


def test_of_a_run_a_device_takes_what_it_trains_by():
    demo = tomllib.loads(Path("simulations/configs/demo.toml").read_text())
    shared = {"algorithm", "dataset", "cohort-size", "rounds", "noise-stddev", "trust"}
    found = device_share(demo | {"seed": 5, "noise-stddev": 3.0, "epsilon": 0.0})
    assert found["seed"] == 5
    assert not found.keys() & (shared - {"algorithm"})
    assert {key: demo[key] for key in demo if key.startswith("critic")} == {
        key: value for key, value in found.items() if key.startswith("critic")
    }
    baseline = {"algorithm": "fedavg-gan", "batch-size": 7, "generator-steps": 2, "rounds": 3}
    taken = {key: value for key, value in baseline.items() if key != "rounds"}
    assert device_share(baseline) == taken
    with pytest.raises(ValueError, match="critic-wdth: no such setting; did you mean critic-width"):
        device_share({"critic-wdth": 3})
