"""What is submitted again, and when that ends; the ServerApp is stood in for by what it writes."""

import json

import pytest

from deploy import keep_running as module
from deploy.keep_running import RunStalled, keep_running, main
from fed_gswgan.reporting.run_folder import SUMMARY


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(module, "START_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)


class Server:
    """Runs some rounds a submission, as its script says, and counts submissions.

    Args:
        folder: of the run.
        script: of each submission, its rounds: True for one with a step. Then it is finished.
    """

    def __init__(self, folder, *script):
        self.folder, self.script, self.settings = folder, list(script), []

    def submit(self, settings):
        self.settings.append(settings)
        rounds = self.folder / "rounds.jsonl"
        self.folder.mkdir(exist_ok=True)
        before = len(rounds.read_text().splitlines()) if rounds.exists() else 0
        with rounds.open("a") as file:
            for number, stepped in enumerate(self.script.pop(0), start=before + 1):
                line = {
                    "server_round": number,
                    "asked": 3,
                    "stepped": stepped,
                    "bytes_by_client": {},
                }
                file.write(json.dumps(line) + "\n")
        (self.folder / "run.json").write_text("{}")
        if not self.script:
            (self.folder / SUMMARY).write_text("{}")


@pytest.fixture
def server_of(tmp_path):
    return lambda *script: Server(tmp_path / "run", *script)


def test_a_run_that_ends_early_is_resumed_until_it_is_finished(server_of):
    server = server_of([True], [True, False, False], [], [True])

    keep_running(server.submit, server.folder, {"seed": 3})

    assert [settings["resume"] for settings in server.settings] == [False, True, True, True]
    assert all(settings["seed"] == 3 for settings in server.settings)


def test_where_too_few_answer_round_after_round_nobody_is_asked_any_more(server_of):
    server = server_of([True], [False] * 5, [True])

    with pytest.raises(RunStalled, match="no step after round 6"):
        keep_running(server.submit, server.folder, {})

    assert len(server.settings) == 2


def test_rounds_without_a_step_add_up_over_crashes(server_of):
    server = server_of([False] * 3, [False] * 2, [True])

    with pytest.raises(RunStalled):
        keep_running(server.submit, server.folder, {})

    assert len(server.settings) == 2


def test_whoever_starts_it_again_gets_another_five_rounds(server_of):
    server = server_of([False] * 5, [False] * 4, [True])
    with pytest.raises(RunStalled):
        keep_running(server.submit, server.folder, {})

    keep_running(server.submit, server.folder, {})

    assert len(server.settings) == 3


def test_a_run_that_finishes_no_round_any_more_is_given_up(server_of):
    server = server_of([True], *[[]] * 20)

    with pytest.raises(RunStalled, match="no step after round 1"):
        keep_running(server.submit, server.folder, {})

    assert len(server.settings) == 6


def test_a_stall_ends_the_command_with_status_3(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RunStalled("x")

    config = tmp_path / "run.toml"
    config.write_text("")
    monkeypatch.setattr(module, "keep_running", fails)
    monkeypatch.setattr(module, "log_to", lambda handler: None)  # that of this process stays
    words = ["keep_running", ".", "--config", str(config), "--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 3


def test_a_run_that_finishes_between_two_looks_is_not_resumed(server_of, monkeypatch):
    server = server_of([True])
    looks = iter([False, True])
    monkeypatch.setattr(module, "is_running", lambda folder: next(looks, False))

    keep_running(server.submit, server.folder, {})

    assert len(server.settings) == 1
