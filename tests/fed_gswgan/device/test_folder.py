import os
import signal
import sqlite3
import stat
import sys
import tomllib
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fed_gswgan.device import folder as folder_module
from fed_gswgan.device.folder import (
    DeviceSettings,
    create_device,
    device_share,
    open_device,
    read_identity,
    read_settings,
)
from fed_gswgan.device.roster import RosterFile, add_to_roster
from fed_gswgan.device.sums import ROUNDS
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger
from fed_gswgan.privacy.mechanism import Event, grid_step
from fed_gswgan.privacy.policy import read_policy
from fed_gswgan.privacy.refusals import (
    LedgerUnavailable,
    Replay,
    RequestExceedsPolicy,
    TooManyRefusals,
    UnsafeAggregation,
)
from fed_gswgan.secure_aggregation.keys import Identity
from fed_gswgan.secure_aggregation.protocol import Phase
from fed_gswgan.wire.messages import REFUSED, RELEASED, Request, answer_of, decode_release
from fed_gswgan.wire.sum_messages import Announcement, SumMessage

PEER = Identity(bytes(range(32)))
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


EVENTS = {
    "open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "sqlite3.connect",
    "sqlite3.connect/handle",
}  # fmt: skip


def killed_at(step, work):
    """Do work in a process that is killed at a file operation; tell whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = [step]

    def count(event, arguments):
        if event in EVENTS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with suppress(BaseException):
        work()
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_device_whose_making_was_cut_off_at_any_step_heals_itself(tmp_path):
    """Made again from the start, or found whole; twice cut off is as good as once."""
    settings = DeviceSettings(**SETTINGS, training={"clipping": "message"})
    steps, folder = 0, tmp_path / "0"
    while killed_at(steps, partial(create_device, folder, settings, None)):
        if steps % 5 == 0:
            killed_at(steps // 2, partial(create_device, folder, settings, None))
        folder.mkdir(exist_ok=True)
        (folder / "ours.npz").touch()
        with suppress(FileExistsError):  # it was cut off after the last step
            create_device(folder, settings, None)
        assert open_device(folder).guard.folder == folder
        assert stat.S_IMODE((folder / LEDGER).stat().st_mode) == 0o600
        assert (folder / "ours.npz").exists()
        steps += 1
        folder = tmp_path / str(steps)
    assert steps > 20


def test_a_cut_off_device_does_not_start_and_a_whole_one_does(make_device):
    folder = make_device()
    (folder / "init.unfinished").touch()
    (folder / "device.toml").rename(folder / "away")
    with pytest.raises(ValueError, match="its init was cut off; fed-gswgan device init again"):
        open_device(folder)
    (folder / "away").rename(folder / "device.toml")
    open_device(folder)
    assert not (folder / "init.unfinished").exists()


def test_a_ledger_with_a_line_is_never_begun_anew(make_device, first_request):
    folder = make_device()
    assert open_device(folder).answer(first_request().encode())[:1] == RELEASED
    (folder / "init.unfinished").touch()
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


SECURE = """max-epsilon = 100.0
trust = ["local", "secure-aggregation"]
min-honest = 2
max-colluding = 0
max-epsilon-alone = 1000.0
answer-seconds = {seconds}
"""


def sums_of(folder, server_round=1):
    """Return the request that the device agrees to, with one peer, as its first message."""
    own, peer = read_identity(folder).public, PEER.public
    cohort = tuple(sorted((own, peer)))
    event = Event(
        rows=4, numbers=784, clipping_bound=1.0, noise_stddev=2.0, trust="secure-aggregation",
        honest=2,
    )  # fmt: skip
    samples = np.full((4, 1, 28, 28), 0.5, np.float32)
    request = Request(
        experiment_id="e", server_round=server_round, algorithm="gs-wgan", event=event,
        modulus_bits=14, tensors={"samples": samples, "labels": np.arange(4)},
    )  # fmt: skip
    body = Announcement(2, cohort, request.encode()).encode()
    return SumMessage(Phase.KEYS, "e", server_round, body).encode()


def test_with_a_roster_it_takes_part_in_sums_and_without_refuses(make_device, tmp_path, caplog):
    folder = make_device(policy=SECURE.format(seconds=0))
    blob = sums_of(folder)
    with pytest.raises(UnsafeAggregation):
        answer_of(open_device(folder).answer(blob))
    assert "refused: roster.toml is missing" in caplog.text
    own = read_identity(folder).public
    made = RosterFile("me", {own: "alice", PEER.public: "bob"})
    (tmp_path / "made").write_text(made.to_toml())
    add_to_roster(folder, tmp_path / "made")
    keys = bytes(answer_of(open_device(folder).answer(blob)))
    assert keys[:32] == own
    with pytest.raises(Replay):
        answer_of(open_device(folder).answer(blob))
    with Ledger(folder) as ledger:
        assert not ledger.releases(), "nothing was released"


@pytest.mark.parametrize(
    "attack",
    [
        lambda request, number: b"no request",
        lambda request, number: replace(
            request, event=replace(request.event, noise_stddev=1.0)
        ).encode(),
        lambda request, number: replace(
            request, experiment_id=f"e{number}", algorithm="another", server_round=number + 1
        ).encode(),
    ],
    ids=["junk", "one round", "other rounds of other experiments"],
)
def test_refused_requests_in_a_loop_are_not_looked_at(
    make_device, first_request, caplog, monkeypatch, attack
):
    """Hundreds write no more lines than the limit, and the run that goes on is answered."""
    device, decoded = open_device(make_device()), []
    decode = Request.decode
    monkeypatch.setattr(Request, "decode", lambda blob: decoded.append(blob) or decode(blob))
    assert device.answer(first_request(1).encode())[:1] == RELEASED
    caplog.clear()
    answers = [device.answer(attack(first_request(2), number)) for number in range(500)]
    assert {answer[:1] for answer in answers} == {REFUSED}
    with pytest.raises(TooManyRefusals):
        answer_of(answers[-1])
    assert len(decoded) < 250, "of 501; one more a second"
    assert len(caplog.records) < 500
    assert device.answer(first_request(3).encode())[:1] == RELEASED
    with Ledger(device.guard.folder) as ledger:
        assert ledger.releases()["alice"].total() == 2


def test_rounds_that_are_begun_and_left_take_a_bounded_part_of_the_disk(make_device, tmp_path):
    folder = make_device(policy=SECURE.format(seconds=0))
    own = read_identity(folder).public
    RosterFile("me", {own: "alice", PEER.public: "bob"}).install(folder)
    device = open_device(folder)
    answers = [device.answer(sums_of(folder, number)) for number in range(1, 301)]
    with closing(sqlite3.connect(folder / ROUNDS)) as rounds:
        (begun,) = rounds.execute("SELECT count(*) FROM rounds").fetchone()
    assert begun == sum(answer[:1] == RELEASED for answer in answers) < 250
    with pytest.raises(TooManyRefusals):
        answer_of(answers[-1])


def test_what_data_was_read_for_leaves_at_a_public_time(make_device, first_request, monkeypatch):
    """Not when it is ready: that would tell how much data there is. A refusal need not wait."""
    folder, slept = make_device(policy=SECURE.format(seconds=2.5)), []
    clock = iter([0.0, 0.25, 10.0, 16.0])  # came, ready; came, ready
    monkeypatch.setattr(folder_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(folder_module.time, "sleep", slept.append)
    device = open_device(folder)
    assert device.answer(first_request(1).encode())[:1] == RELEASED
    assert slept.pop() == 2.25
    assert device.answer(first_request(2).encode())[:1] == RELEASED
    assert slept.pop() == 1.5, "6 s late: at the third multiple"
    clock = iter([0.0] * 9)
    assert device.answer(b"no request")[:1] != RELEASED
    assert device.answer(sums_of(folder))[:1] != RELEASED
    assert not slept


def test_data_that_cannot_be_read_is_found_before_a_request(make_device, tmp_path):
    device = open_device(make_device())
    (tmp_path / "digits.npz").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"digits\.npz"):
        device.read_data()
