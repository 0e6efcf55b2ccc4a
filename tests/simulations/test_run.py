import fcntl
import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER
from fed_gswgan.profiling import PROFILE_FOLDER
from fed_gswgan.reporting.logs import PACKAGES
from fed_gswgan.reporting.round_log import read_rounds
from simulations.run import main
from tests.conftest import SMALL

CONFIGS = sorted(Path("simulations/configs").glob("*.toml"))


def arguments(folder: Path, **overrides: object) -> list[str]:
    settings = SMALL | {key.replace("_", "-"): value for key, value in overrides.items()}
    words = ["--runtime", "in-process", "--workers", "1", "--output", str(folder)]
    for key, value in settings.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return words


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """Undo what a run does to its process: environment, handlers of signals and of log lines."""
    monkeypatch.setenv(SIMULATION_FOLDER, "unset")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    loggers = [logging.getLogger(name) for name in (*PACKAGES, "flwr")]
    before = [(log.level, log.handlers, log.propagate) for log in loggers]
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for log, (level, handlers_before, propagate) in zip(loggers, before, strict=True):
        log.setLevel(level)
        log.handlers, log.propagate = handlers_before, propagate


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("setting", ["noise-stddev=-1", "noise-stddev=nan", "cohort-size=0",
                                     "clipping=batch", "rounds=1.5", "nosuch=1"])  # fmt: skip
def test_a_bad_setting_is_named_and_nothing_is_written(tmp_path, capsys, setting):
    folder = tmp_path / "run"

    assert main([*arguments(folder), "--set", setting]) == 2

    assert setting.split("=")[0] in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "-1"], "workers=-1 must be a whole number >= 0"),
        (["--clients-per-message", "2"], "clients-per-message=2 must be left out with runtime=in-"),
        (["--runtime", "ray", "--ray-address", "auto"], "workers=1 must be left out with ray-addr"),
    ],
)
def test_an_engine_that_cannot_be_is_named(tmp_path, capsys, options, said):
    assert main([*arguments(tmp_path / "run"), *options]) == 2

    assert said in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_missing_config_file_is_named(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().out.replace("\n", "")


def test_resuming_what_is_no_run_says_so(tmp_path, capsys):
    assert main(["--resume", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().out.replace("\n", "")


def test_a_config_file_that_is_no_toml_is_an_error_line(tmp_path, capsys):
    (tmp_path / "bad.toml").write_text("rounds = = 3")
    assert main(["--config", str(tmp_path / "bad.toml")]) == 2
    assert capsys.readouterr().out.startswith("error: ")


def test_an_override_without_a_value_is_named(tmp_path, capsys):
    assert main([*arguments(tmp_path / "run"), "--set", "rounds"]) == 2
    assert "--set rounds: must be KEY=VALUE" in capsys.readouterr().out


def test_an_unknown_option_ends_with_status_two():
    with pytest.raises(SystemExit) as ended:
        main(["--nosuch"])
    assert ended.value.code == 2


@pytest.mark.parametrize("value", ["[/red]", "[bold]", "x" * 300, "[link=" + "y " * 100 + "]"])
def test_an_error_is_one_line_as_it_is_whatever_the_value(tmp_path, capsys, value):
    assert main([*arguments(tmp_path / "run"), "--set", f"critic={value}"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: critic=")
    assert value.strip() in line


@pytest.mark.parametrize("option", ["--config", "--output"])
def test_resuming_takes_neither_another_config_nor_another_folder(tmp_path, capsys, option):
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=1)) == 0
    before = everything_in(tmp_path)

    assert main(["--resume", str(folder), option, str(tmp_path / "other")]) == 2

    assert "drop --config, --output" in capsys.readouterr().out
    assert everything_in(tmp_path) == before


def test_a_resumed_run_keeps_what_decides_its_rounds_and_may_be_longer(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=2)) == 0
    before = everything_in(tmp_path)
    resume = ["--runtime", "in-process", "--workers", "1", "--resume", str(folder)]

    assert main([*resume, "--set", "noise-stddev=50"]) == 2
    said = capsys.readouterr().out
    assert "noise-stddev=50.0 differs from the 2.14 of the run" in said
    assert everything_in(tmp_path) == before

    assert main([*resume, "--set", "rounds=3"]) == 0
    assert [line["server_round"] for line in read_rounds(folder)] == [1, 2, 3]
    assert json.loads((folder / "run.json").read_text())["config"]["rounds"] == 3


def test_a_run_is_not_written_over(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=1)) == 0
    before = everything_in(tmp_path)
    assert main(arguments(folder, rounds=1)) == 2
    assert "holds a run already" in capsys.readouterr().out
    assert everything_in(tmp_path) == before


def resuming(folder):
    """Return the arguments that go on with a run for a second round."""
    return [
        *["--runtime", "in-process", "--workers", "1", "--set", "rounds=2", "--resume"],
        str(folder),
    ]


def test_a_run_that_another_process_has_is_not_resumed(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=1)) == 0
    capsys.readouterr()
    before = everything_in(tmp_path)
    resume = resuming(folder)

    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(resume) == 1

    assert f"error: output-dir={folder}: another process" in capsys.readouterr().out
    assert everything_in(tmp_path) == before
    assert main(resume) == 0


def test_a_run_whose_own_count_is_gone_fails_with_a_line(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=1)) == 0
    (folder / "asked.jsonl").unlink()
    capsys.readouterr()

    resume = resuming(folder)
    assert main(resume) == 1

    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("error: "))
    assert "asked.jsonl" in line


def test_a_run_that_nobody_answers_fails_and_says_so(tmp_path, capsys, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("fed_gswgan.device.guard.check_request", fail)
    assert main(arguments(tmp_path / "run", rounds=9)) == 1

    captured = capsys.readouterr()
    assert "error: no generator step in the last 5 rounds" in captured.out
    assert str(tmp_path / "run" / "clients" / "failures.log") in captured.err
    assert len(read_rounds(tmp_path / "run")) == 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path, tmp_path, capsys):
    from fed_gswgan.config import Config
    from simulations.run import _parser, _settings

    options = _parser().parse_args(["--config", str(path), "--set", "rounds=20"])
    config = Config.from_run_config(_settings(options))

    assert config.run.rounds == 20


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "a run"
    command = [sys.executable, "-m", "simulations.run", *arguments(folder, rounds=2000)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "rounds.jsonl").exists() or len(read_rounds(folder)) < 2:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 130
    (said_last,) = (line for line in said.splitlines() if "go on with: " in line)
    finished = len(read_rounds(folder))
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    assert index["progress"]["server_round"] == finished

    pasted = said_last.partition("go on with: ")[2]
    assert pasted.startswith(sys.executable)
    assert pasted.endswith("--workers 1 --runtime in-process")
    # As somebody would paste it into a shell; only ended, for the sake of time, two rounds later.
    shell = f"{pasted} --set rounds={finished + 2}"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_rounds(folder)) == finished + 2


@pytest.mark.parametrize(
    "words",
    [
        ["--runtime", "ray"],
        ["--workers", "2", "--clients-per-message", "3", "--runtime", "ray"],
        ["--ray-address", "127.0.0.1:6390", "--runtime", "ray"],
        ["--workers", "2", "--runtime", "in-process"],
    ],
)
def test_the_options_that_resume_a_run_are_those_it_was_started_with(words):
    from simulations.engine import Engine
    from simulations.run import _parser

    given = _parser().parse_args(words)
    engine = Engine(
        runtime=given.runtime, workers=given.workers,
        clients_per_message=given.clients_per_message, ray_address=given.ray_address,
    )  # fmt: skip

    assert engine.options() == words


@pytest.mark.parametrize("key", ["data-dir", "writers-file"])
def test_a_path_is_made_absolute_since_a_worker_may_have_another_folder(tmp_path, key):
    from simulations.run import _parser, _settings

    given = _parser().parse_args(["--output", str(tmp_path), "--set", f"{key}=somewhere"])

    assert _settings(given)[key] == str(Path("somewhere").absolute())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_profile_says_where_each_rounds_time_went(tmp_path, monkeypatch, workers):
    monkeypatch.setenv(PROFILE_FOLDER, "unset")
    folder = tmp_path / "run"
    assert main([*arguments(folder, rounds=3), "--workers", workers, "--profile"]) == 0

    profile = json.loads((folder / "summary.json").read_text())["profile"]
    assert profile["rounds"] == 3
    for phase in ("generator", "critic", "sanitize", "codec"):
        assert profile["seconds"][phase] > 0
    rounds = sum(line["round_seconds"] for line in read_rounds(folder))
    assert sum(profile["seconds"].values()) == pytest.approx(rounds, rel=0.05, abs=0.01)
    (events,) = (folder / "tensorboard").iterdir()
    assert b"profile/engine_wait" in events.read_bytes()


def test_no_profile_is_kept_where_nobody_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(PROFILE_FOLDER, str(tmp_path / "of another run"))
    folder = tmp_path / "run"
    assert main(arguments(folder, rounds=1)) == 0

    assert json.loads((folder / "summary.json").read_text())["profile"] is None
    assert not (folder / "profile").exists()
    assert not (tmp_path / "of another run").exists()


def test_a_run_ends_with_a_table_a_picture_and_plain_words(tmp_path, capsys):
    folder = tmp_path / "run"

    assert main([*arguments(folder, rounds=40), "--set", "evaluation-samples=40"]) == 0

    said = " ".join(capsys.readouterr().out.split())
    assert "protects nobody" in said
    assert "secure aggregation" in said
    assert "downstream accuracy" in said
    assert list((folder / "samples").glob("*.png"))
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert {"inception_score", "frechet_distance", "label_agreement", "downstream_accuracy"} <= set(
        metrics
    )
