import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulations.run import main
from tests.conftest import SMALL, read_rounds

CONFIGS = sorted(Path("simulations/configs").glob("*.toml"))


def arguments(folder: Path, **overrides: object) -> list[str]:
    settings = SMALL | {key.replace("_", "-"): value for key, value in overrides.items()}
    words = ["--runtime", "in-process", "--output", str(folder)]
    for key, value in settings.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return words


@pytest.mark.parametrize("setting", ["noise-stddev=-1", "noise-stddev=nan", "cohort-size=0",
                                     "clipping=batch", "rounds=1.5", "nosuch=1"])  # fmt: skip
def test_a_bad_setting_is_named_and_nothing_is_written(tmp_path, capsys, setting):
    folder = tmp_path / "run"

    assert main([*arguments(folder), "--set", setting]) == 2

    assert setting.split("=")[0] in capsys.readouterr().out
    assert not folder.exists()


def test_a_missing_config_file_is_named(tmp_path, capsys):
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().out.replace("\n", "")


def test_resuming_what_is_no_run_says_so(tmp_path, capsys):
    assert main(["--resume", str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path, tmp_path, capsys):
    from fed_gswgan.config import Config
    from simulations.run import _parser, _settings

    options = _parser().parse_args(["--config", str(path), "--set", "rounds=20"])
    config = Config.from_run_config(_settings(options))

    assert config.run.rounds == 20


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "run"
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
    assert f"--resume {folder}" in said.replace("\n", "")
    finished = len(read_rounds(folder))
    index = json.loads((folder / "checkpoint" / "checkpoint.json").read_text())
    assert index["progress"]["server_round"] == finished


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
