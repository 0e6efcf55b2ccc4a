"""What an owner does: ``fed-gswgan device`` and ``fed-gswgan ledger``."""

import json
import logging
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from fed_gswgan.cli import main
from fed_gswgan.device import service
from fed_gswgan.device.folder import read_identity, read_settings
from fed_gswgan.device.service import ask, ask_for_proof
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger, owners_hash
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Policy, read_policy
from fed_gswgan.secure_aggregation.keys import client_id_of, proven
from fed_gswgan.wire.messages import ReleaseKey, Request, decode_release

POLICY = """
max-epsilon = 100.0
delta = 1e-6
neighboring-relation = "zero-out"
max-participations = 20
"""
RUN = """
rounds = 7
noise-stddev = 3.0
batch-size = 4
critic = "mlp"
critic-width = 8
critic-steps = 1
"""
FILES = (LEDGER, HEAD, REPLIES)


def said(capsys, *arguments, status=0):
    """What a command prints as JSON."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments, status=2):
    """What a command prints to standard error."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == status
    found = capsys.readouterr()
    assert found.out == ""
    return found.err


@pytest.fixture
def device(tmp_path, capsys):
    """A device that was made by the command."""
    pixels = np.random.default_rng(0).integers(0, 100, (20, 28, 28), np.uint8)
    np.savez(tmp_path / "digits.npz", images=pixels, labels=np.arange(20) % 10)
    (tmp_path / "digits.npz").chmod(0o600)
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "run.toml").write_text(RUN)
    options = ["--name", "alice", "--data", tmp_path / "digits.npz"]
    options += ["--policy", tmp_path / "policy.toml", "--settings", tmp_path / "run.toml"]
    found = said(capsys, "device", "init", tmp_path / "device", *options)
    assert found["socket"] == str(tmp_path / "device" / "guard.sock")
    public = read_identity(tmp_path / "device").public
    assert found["client_id"] == client_id_of(public)
    assert found["public_key"] == public.hex()
    assert "another device of the same person has one of its own" in found["budget"]
    assert found["next"] == f"fed-gswgan device check {tmp_path / 'device'}"
    return tmp_path / "device"


class TestDevice:
    def test_init_takes_the_algorithms_settings_and_makes_it_once(self, device, tmp_path, capsys):
        made = read_settings(device / "device.toml")
        assert (made.name, made.classes) == ("alice", "digits")
        own = {"critic": "mlp", "batch-size": 4, "critic-width": 8, "critic-steps": 1}
        assert {k: v for k, v in made.training.items() if k != "seed"} == own
        assert read_policy(device / "policy.toml").max_participations == 20
        again = ["device", "init", device, "--name", "bob", "--data", "/x"]
        assert "there is a device already" in refused(capsys, *again)
        named = [tmp_path / "named", "--name", "b", "--data", "/x", "--classes", "cat,dog"]
        said(capsys, "device", "init", *named)
        made = read_settings(tmp_path / "named" / "device.toml")
        assert (made.classes, made.training["clipping"]) == (("cat", "dog"), "message")

    def test_init_refuses_a_wrong_setting_and_makes_nothing(self, tmp_path, capsys):
        (tmp_path / "run.toml").write_text("batch-sze = 4")
        init = ["device", "init", tmp_path / "device", "--data", "/x"]
        assert "name" in refused(capsys, *init)
        init += ["--name", "a", "--settings", tmp_path / "run.toml"]
        assert "did you mean batch-size" in refused(capsys, *init)
        assert not (tmp_path / "device").exists()

    def test_check_says_what_is_wrong_by_its_exit_status(self, device, capsys):
        found = said(capsys, "device", "check", device)
        assert all(check["ok"] for check in found["checks"])
        assert found["client_id"] == client_id_of(read_identity(device).public)
        (device / "policy.toml").write_text("x = 1")
        found = said(capsys, "device", "check", device, status=1)
        assert [check["name"] for check in found["checks"] if not check["ok"]] == [
            "policy",
            "roster",
        ]
        assert main(["device", "check", str(device)]) == 1
        assert "FAIL  policy: policy.toml: x: no such setting" in capsys.readouterr().out
        error = refused(capsys, "device", "check", device, "--server", "a:1")
        assert "needs --root-certificates" in error

    def test_peers_are_installed_shown_and_verified(self, device, tmp_path, capsys):
        own, peer = read_identity(device).public.hex(), "ab" * 32
        (tmp_path / "made.toml").write_text(
            f'made-by = "J. Doe"\n[people]\nalice = ["{own}"]\nbob = ["{peer}"]\n'
        )
        assert "roster.toml" in refused(capsys, "device", "roster", "show", device)
        found = said(capsys, "device", "roster", "add", device, tmp_path / "made.toml")
        assert found == said(capsys, "device", "roster", "show", device)
        assert (found["made_by"], found["own_key_is_in_it"]) == ("J. Doe", True)
        assert [one["public_key"] for one in found["people"]["bob"]] == [peer]
        assert said(capsys, "device", "roster", "verify", device)["good"]  # no sum is admitted
        secure = 'trust = ["secure-aggregation"]\nmin-honest = {}\nmax-colluding = 0\n'
        for honest, good in ((2, True), (3, False)):
            limits = POLICY + secure.format(honest) + "max-epsilon-alone = 900.0\n"
            (device / "policy.toml").write_text(limits)
            found = said(capsys, "device", "roster", "verify", device, status=int(not good))
            assert found["good"] is good
        assert "2 people must be >= 3" in found["why"]
        assert main(["device", "roster", "show", str(device)]) == 0
        shown = capsys.readouterr().out
        assert f"made by J. Doe\nalice: {client_id_of(bytes.fromhex(own))}  {own}  (this" in shown

    def test_served_by_a_process_it_answers_before_and_after_a_kill(self, device, monkeypatch):
        """Ledger and replies survive it; no environment makes the noise a simulation's."""
        event = Event(rows=4, numbers=784, clipping_bound=1.0, noise_stddev=2.14)
        samples = np.full((4, 1, 28, 28), 0.5, np.float32)
        request = Request(
            experiment_id="e", server_round=1, algorithm="gs-wgan", event=event,
            tensors={"samples": samples, "labels": np.arange(4)},
        )  # fmt: skip
        answers = []
        monkeypatch.setattr(service, "CONNECT_PATIENCE_SECONDS", 60.0)  # on a busy machine
        for number in (signal.SIGKILL, signal.SIGTERM):
            command = [sys.executable, "-m", "fed_gswgan.cli", "device", "serve", str(device)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                serving = process.stdout.readline()
                assert serving == f"serving alice at {device}/guard.sock\n"
                proof = ask_for_proof(device / "guard.sock", b"drawn")
                assert proven(proof, b"drawn") == read_identity(device).public
                answers.append(ask(device / "guard.sock", request.encode()))
                process.send_signal(number)
                rest = process.stdout.read()
        assert (process.returncode, rest) == (0, "stopped\n")
        assert decode_release(answers[0], request).shape == (event.size,)
        assert answers[0] == answers[1]
        with Ledger(device) as ledger:
            assert ledger.verify() == 1

    def test_without_its_ledger_it_shows_and_serves_nothing(self, device, capsys, monkeypatch):
        logger = logging.getLogger("fed_gswgan")
        for name in ("handlers", "propagate"):  # `serve` is its process's only command
            monkeypatch.setattr(logger, name, getattr(logger, name))
        (device / HEAD).unlink()
        for command in (["device", "serve"], ["ledger", "show"]):
            error = refused(capsys, *command, device, status=1)
            assert error.startswith("fed-gswgan: LEDGER_UNAVAILABLE: ")


USERS = {"client": ("f0001", "f0002")}
EVENT = Event(rows=4, numbers=9, clipping_bound=1.0, noise_stddev=8.0)


@pytest.fixture
def ledger(tmp_path):
    Ledger.create(tmp_path / "shard", owners_hash(USERS))
    return tmp_path / "shard"


def release(folder, *rounds):
    for server_round in rounds:
        with Ledger(folder) as ledger:
            key = ReleaseKey("e", server_round, "ab")
            ledger.reserve(USERS, key, EVENT, Policy(max_epsilon=1e6))
            ledger.store(key, 1, [("client", np.zeros(36, np.int64), None)])


class TestLedger:
    def test_show_says_what_each_user_released_and_its_cost(self, ledger, capsys):
        release(ledger, 1, 2, 3)
        found = said(capsys, "ledger", "show", ledger)
        assert set(found["users"]) == {"f0001", "f0002"}
        cost = found["users"]["f0002"]
        # Four rows, replace-one: 2 x 2 / 8 = 0.5 a release, times the root of 3.
        assert cost["mu"] == pytest.approx(0.5 * 3**0.5, rel=1e-12)
        assert cost["epsilon"] == pytest.approx(gaussian_epsilon(0.5 * 3**0.5, 1e-5), rel=1e-12)
        assert cost["participations"] == 3
        (of_one_kind,) = cost["releases"]
        assert of_one_kind == {"count": 3, **{name: getattr(EVENT, name) for name in vars(EVENT)}}
        assert main(["ledger", "show", str(ledger)]) == 0
        out = capsys.readouterr().out
        assert out.count("3 participations") == 2
        assert "3 x 4 rows, clipping sample to 1, noise 8, trust local" in out

    def test_show_reads_the_ledger_as_the_policy_does(self, ledger, tmp_path, capsys):
        release(ledger, 1, 2, 3)
        (tmp_path / "policy.toml").write_text(POLICY)
        named = said(capsys, "ledger", "show", ledger, "--policy", tmp_path / "policy.toml")
        shutil.copy(tmp_path / "policy.toml", ledger)
        assert said(capsys, "ledger", "show", ledger) == named  # the device's own
        limits = ("delta", "max_epsilon", "max_participations")
        assert [named[name] for name in limits] == [1e-6, 100.0, 20]
        assert named["users"]["f0001"]["mu"] == pytest.approx(0.25 * 3**0.5, rel=1e-12)

    def test_verify_convicts_what_was_changed_or_cut(self, ledger, tmp_path, capsys):
        release(ledger, 1, 2)
        found = said(capsys, "ledger", "verify", ledger)
        assert (found["intact"], found["lines"]) == (True, 4)
        whole = shutil.copytree(ledger, tmp_path / "whole")
        for name in FILES:
            shutil.copytree(whole, ledger, dirs_exist_ok=True)
            content = bytearray((ledger / name).read_bytes())
            (ledger / name).write_bytes(content[: len(content) // 2])
            found = said(capsys, "ledger", "verify", ledger, status=1)
            assert found["intact"] is False
            assert found["why"].startswith("LEDGER_UNAVAILABLE: ")
        shutil.copytree(whole, ledger, dirs_exist_ok=True)
        assert said(capsys, "ledger", "verify", ledger)["intact"] is True

    def test_a_backup_put_back_alone_shows_against_the_replies(self, ledger, tmp_path, capsys):
        release(ledger, 1)
        assert said(capsys, "ledger", "backup", ledger, tmp_path / "backup")["lines"] == 2
        assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == sorted(FILES)
        assert "another folder" in refused(capsys, "ledger", "backup", ledger, tmp_path / "backup")
        shutil.copytree(tmp_path / "backup", ledger, dirs_exist_ok=True)
        assert said(capsys, "ledger", "verify", ledger)["lines"] == 2
        release(ledger, 2)
        for name in (LEDGER, HEAD):
            shutil.copy(tmp_path / "backup" / name, ledger)
        found = said(capsys, "ledger", "verify", ledger, status=1)
        assert "older than its replies" in found["why"]
