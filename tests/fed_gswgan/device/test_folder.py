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
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger
from fed_gswgan.privacy.mechanism import grid_step
from fed_gswgan.privacy.policy import read_policy
from fed_gswgan.privacy.refusals import LedgerUnavailable, RequestExceedsPolicy
from fed_gswgan.wire.messages import decode_release

SETTINGS = {"name": "alice", "data": "/data/alice"}


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


def test_a_device_gets_a_careful_policy_and_a_seed_of_its_own(tmp_path):
    settings = DeviceSettings(**SETTINGS, training={"clipping": "message"})
    create_device(tmp_path / "device", settings, None)
    policy = read_policy(tmp_path / "device" / "policy.toml")
    assert (policy.max_epsilon, policy.neighboring_relation) == (10.0, "replace-one")
    assert (policy.clipping, policy.max_clipping_bound, policy.min_noise_stddev) == (
        "message", 1.0, 2.14,
    )  # fmt: skip
    assert (policy.trust, policy.central_noise_stddev) == (("local",), 0.0)
    create_device(tmp_path / "other", settings, None)
    files = [tmp_path / name / "device.toml" for name in ("device", "other")]
    seeds = {read_settings(path).training["seed"] for path in files}
    assert len(seeds) == 2  # of its own, unless it is given one


def test_a_device_whose_policy_refuses_what_it_trains_for_is_not_made(tmp_path):
    settings = DeviceSettings(**SETTINGS, training={"critic": "mlp", "clipping": "sample"})
    with pytest.raises(ValueError, match=r"refuses every request of .* clipping=sample must be"):
        create_device(tmp_path / "device", settings, None)
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("policy", "said"),
    [("max-rows = 3", "max-epsilon"), ("max-epsilon = inf", "max-epsilon"),
     ("max-epsilon = 1.0\nmax-row = 3", "did you mean max-rows"), ("[", "at end of document")],
)  # fmt: skip
def test_a_policy_that_is_none_makes_no_device(make_device, tmp_path, policy, said):
    with pytest.raises(ValueError, match=said):
        make_device(policy=policy)
    assert not (tmp_path / "device").exists()


def test_settings_come_back_from_their_file(tmp_path):
    names, training = ("\u00e4", 'b"c', "\U0001f600"), {"seed": 3, "critic": "conv"}
    settings = DeviceSettings(**SETTINGS, classes=names, training=training, socket="/run/a.sock")
    (tmp_path / "device.toml").write_text(settings.to_toml())
    assert read_settings(tmp_path / "device.toml") == settings


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "a/b"}, "name='a/b'"),
        ({"name": None}, "name must be given"),
        ({"data": "images"}, "data='images' must be an absolute path"),
        ({"data": None}, "data must be given"),
        ({"data": "/a\nb"}, "can be printed"),
        ({"classes": "some"}, "classes='some'"),
        ({"classes": ("a", "a")}, "each given once"),
        ({"nam": "alice"}, "nam: no such setting; did you mean name?"),
        ({"training": {"critic-width": 0}}, "critic-width=0"),
        ({"training": {"critic-stps": 1}}, "critic-stps: no such setting; did you mean critic-s"),
        # What decides privacy is the policy's, and no setting chooses the noise.
        ({"training": {"noise-source": "seeded"}}, "noise-source: no such setting"),
        ({"training": {"noise-stddev": 0.1}}, "noise-stddev: no such setting"),
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_refused_by_name(changed, said):
    table = {"name": "alice", "data": "/data"} | changed
    table = {key: value for key, value in table.items() if value is not None}
    with pytest.raises(ValueError, match=said) as error:
        DeviceSettings.from_table(table, "device.toml: ")
    assert str(error.value).startswith("device.toml: ")


def test_of_a_run_a_device_takes_what_it_trains_by():
    demo = tomllib.loads(Path("simulations/configs/digits.toml").read_text())
    found = device_share(demo | {"seed": 5, "noise-stddev": 3.0, "epsilon": 0.0})
    assert (found["seed"], found["critic"]) == (5, demo["critic"])
    assert not found.keys() & {"dataset", "cohort-size", "rounds", "noise-stddev", "trust"}
    baseline = {"algorithm": "fedavg-gan", "batch-size": 7, "generator-steps": 2, "rounds": 3}
    taken = {key: value for key, value in baseline.items() if key != "rounds"}
    assert device_share(baseline) == taken
    with pytest.raises(ValueError, match="critic-wdth: no such setting; did you mean critic-width"):
        device_share({"critic-wdth": 3})
