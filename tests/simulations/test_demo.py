"""The demo whole, on Ray, under the paper's noise."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_draws_digits_that_teach_a_classifier(tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "simulations.run",
        "--config",
        "simulations/configs/digits.toml",
    ]

    subprocess.run([*command, "--output", str(folder)], check=True, timeout=900)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["runtime"] == "ray"
    assert summary["clients"] == 14
    assert summary["privacy"]["noise_stddev"] == 2.14
    assert summary["metrics"]["downstream_accuracy"] >= 0.80
    assert summary["metrics"]["label_agreement"] >= 0.65
    assert summary["replies"] == {"received": 3360, "failed": 0, "malformed": 0, "missing": 0}


@pytest.mark.slow
def test_fed_emnist_trains_on_400_writers_and_62_classes(tmp_path, fed_gswgan_data):
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "simulations.run", "--config", "simulations/configs/fed-emnist.toml",
        "--set", "rounds=20", "--set", "warm-start-steps=1", "--output", str(folder),
    ]  # fmt: skip

    subprocess.run(command, check=True, timeout=1800)

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["clients"] >= 400
    assert summary["classes"] == 62
    assert summary["rounds"] == 20
