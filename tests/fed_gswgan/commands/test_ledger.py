import json
import shutil

import pytest

from fed_gswgan.cli import main
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy

EVENT = SanitizedGradientEvent(samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
POLICY = """
max-epsilon = 3.0
delta = 1e-6
neighboring-relation = "zero-out"
max-participations = 20
min-noise-stddev = 8.0
"""


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert main(["ledger", "init", str(path), "--user", "f0001", "--user", "f0002"]) == 0
    return path


def release(path, rounds):
    device = Ledger(path, ("f0001", "f0002"), DevicePolicy(min_noise_stddev=8.0))
    for server_round in range(1, rounds + 1):
        device.reserve(ReleaseKey("experiment", server_round, "0" * 64), EVENT)


def said(capsys, *arguments, status=0):
    capsys.readouterr()
    assert main(["ledger", *map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments, status=2):
    capsys.readouterr()
    assert main(["ledger", *map(str, arguments)]) == status
    return capsys.readouterr().err


def test_a_new_ledger_is_whole_and_empty(ledger, capsys):
    found = said(capsys, "verify", ledger)
    assert (found["intact"], found["users"], found["releases"]) == (True, 2, 0)


def test_a_ledger_is_created_once(ledger, capsys):
    release(ledger, 1)
    before = ledger.read_bytes()
    assert "there was a ledger here" in refused(capsys, "init", ledger, "--user", "f0001")
    assert ledger.read_bytes() == before


def test_a_ledger_whose_file_was_removed_is_not_created_again(ledger, capsys):
    ledger.unlink()
    assert "there was a ledger here" in refused(capsys, "init", ledger, "--user", "f0001")
    assert not ledger.exists()


@pytest.mark.parametrize("users", [["a", "a"], [""]])
def test_users_must_be_names_given_once(tmp_path, capsys, users):
    options = [word for user in users for word in ("--user", user)]
    assert "must be names" in refused(capsys, "init", tmp_path / "new.jsonl", *options)
    assert list(tmp_path.iterdir()) == []


def test_show_says_what_each_user_released_and_what_it_cost(ledger, capsys):
    release(ledger, 3)
    found = said(capsys, "show", ledger, "--delta", "1e-5")
    assert set(found["users"]) == {"f0001", "f0002"}
    cost = found["users"]["f0002"]
    # Four rows, replace-one: 2 x 2 / 8 = 0.5 a reply, times the root of 3.
    assert cost["mu"] == pytest.approx(0.5 * 3**0.5, rel=1e-12)
    assert cost["epsilon"] == pytest.approx(gaussian_epsilon(0.5 * 3**0.5, 1e-5), rel=1e-12)
    assert cost["participations"] == 3
    assert cost["releases"] == [{"count": 3, **vars(EVENT)}]
    assert found["trust_model"] == "local"


def test_show_reads_the_ledger_as_the_policy_does(ledger, tmp_path, capsys):
    release(ledger, 3)
    (tmp_path / "policy.toml").write_text(POLICY)
    found = said(capsys, "show", ledger, "--policy", tmp_path / "policy.toml")
    assert (found["delta"], found["max_epsilon"], found["max_participations"]) == (1e-6, 3.0, 20)
    assert found["users"]["f0001"]["mu"] == pytest.approx(0.25 * 3**0.5, rel=1e-12)


def test_show_for_people_names_every_user(ledger, capsys):
    release(ledger, 2)
    capsys.readouterr()
    assert main(["ledger", "show", str(ledger)]) == 0
    out = capsys.readouterr().out
    assert out.count("2 participations") == 2
    assert "2 x 4 rows, clipping sample to 1, noise 8" in out


def test_policy_and_options_that_contradict_it_are_refused(ledger, tmp_path, capsys):
    (tmp_path / "policy.toml").write_text(POLICY)
    policy = ["--policy", tmp_path / "policy.toml"]
    assert "delta" in refused(capsys, "show", ledger, *policy, "--delta", "1e-3")


def test_verify_convicts_an_edit_a_cut_and_a_missing_head(ledger, capsys):
    release(ledger, 2)
    whole = ledger.read_bytes()
    for damaged in (whole.replace(b'"server_round": 1', b'"server_round": 9'), whole[:-1], b""):
        ledger.write_bytes(damaged)
        assert said(capsys, "verify", ledger, status=1)["intact"] is False
    lines = whole.splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]))
    assert "was cut" in said(capsys, "verify", ledger, status=1)["why"]
    ledger.write_bytes(whole)
    assert said(capsys, "verify", ledger)["intact"] is True
    ledger.with_suffix(".head").unlink()
    assert "LEDGER_UNAVAILABLE" in said(capsys, "verify", ledger, status=1)["why"]


def test_a_line_torn_by_a_power_cut_is_mended_when_the_owner_asks(ledger, capsys):
    release(ledger, 2)
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"entry": {"ev')
    assert said(capsys, "verify", ledger, status=1)["intact"] is False
    found = said(capsys, "verify", ledger, "--drop-incomplete-line")
    assert (found["intact"], found["dropped_incomplete_line"], found["releases"]) == (True, True, 4)
    assert ledger.read_bytes() == whole
    assert said(capsys, "verify", ledger)["intact"] is True


def test_a_line_that_was_whole_once_is_not_mended(ledger, capsys):
    release(ledger, 2)
    torn = ledger.read_bytes()[:-5]
    ledger.write_bytes(torn)
    assert said(capsys, "verify", ledger, "--drop-incomplete-line", status=1)["intact"] is False
    assert ledger.read_bytes() == torn


def test_a_backup_put_back_works_as_long_as_nothing_was_released_since(ledger, tmp_path, capsys):
    release(ledger, 2)
    found = said(capsys, "backup", ledger, tmp_path / "backup")
    assert found["entries"] == 4
    for path in (ledger, ledger.with_suffix(".head")):
        path.unlink()
        shutil.copy2(tmp_path / "backup" / path.name, path)
    assert said(capsys, "verify", ledger)["releases"] == 4


def test_a_backup_overwrites_nothing(ledger, tmp_path, capsys):
    said(capsys, "backup", ledger, tmp_path / "backup")
    release(ledger, 1)
    before = (tmp_path / "backup" / "ledger.jsonl").read_bytes()
    assert "there is one" in refused(capsys, "backup", ledger, tmp_path / "backup")
    assert (tmp_path / "backup" / "ledger.jsonl").read_bytes() == before


def test_a_damaged_ledger_is_not_backed_up(ledger, tmp_path, capsys):
    ledger.write_bytes(ledger.read_bytes()[:-1])
    said_no = refused(capsys, "backup", ledger, tmp_path / "backup", status=1)
    assert "LEDGER_UNAVAILABLE" in said_no
    assert not (tmp_path / "backup" / "ledger.jsonl").exists()


@pytest.mark.parametrize("action", ["show", "verify", "backup"])
def test_a_ledger_that_is_not_there_is_named(tmp_path, capsys, action):
    target = [tmp_path / "backup"] if action == "backup" else []
    capsys.readouterr()
    assert main(["ledger", action, str(tmp_path / "gone.jsonl"), *map(str, target)]) == 1
    captured = capsys.readouterr()
    assert "LEDGER_UNAVAILABLE" in captured.out + captured.err
