"""What `make simulate` promises, whole and on Ray; and a run of all classes."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_thousand_real_writers_at_epsilon_1_teach_a_classifier(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "simulations.run", "--config"]
    command += ["simulations/configs/writers.toml", "--output", str(folder)]

    subprocess.run(command, check=True, timeout=1800)

    summary = json.loads((folder / "summary.json").read_text())
    found, prior = summary["metrics"], summary["references"]["the prior alone"]
    real = summary["references"]["real images of clients"]
    assert summary["runtime"] == "ray"
    assert summary["clients"] == 1232
    assert summary["privacy"]["epsilon_max"] <= 1
    gap = prior["frechet_distance"] - real["frechet_distance"]
    assert prior["frechet_distance"] - found["frechet_distance"] >= gap / 2
    assert found["label_agreement"] >= prior["label_agreement"] + 0.05
    assert found["downstream_accuracy"] >= 0.90
    assert summary["replies"] == {"received": 3696, "failed": 0, "malformed": 0, "missing": 0}


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
