import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fed_gswgan.comparison.cells import Cell
from fed_gswgan.comparison.results_folder import ResultsFolder
from fed_gswgan.comparison.table1 import Table1

METRICS = {
    "inception_score": 8.0,
    "frechet_distance": 12.0,
    "kernel_distance": 0.1,
    "mlp_accuracy": 0.8,
    "cnn_accuracy": 0.9,
    "average_accuracy": 0.7,
    "calibrated_accuracy": 0.75,
    "ratio_of_mean_accuracies": 0.74,
    "features": "classifier",
    "score_classifier": "small",
    "score_classifier_accuracy": 0.98,
    "classifier_samples": 6000,
    "split": "tested on the 10000 real test images",
    "notes": ["LeNet: 20 epochs"],
}


def table(folder: Path, **changed) -> Table1:
    settings = dict(
        dataset="mnist", data_dir=None, preset="small", methods=("dp-merf",), epsilons=(10.0,),
        delta=1e-5, seeds=2, folder=folder, workers=1, device="cpu",
    )  # fmt: skip
    return Table1(**{**settings, **changed})


def keep(folder: Path, method: str, seed: int, cnn_accuracy: float, epsilon: float = 0.0) -> None:
    """Keep a cell as a run leaves it, so that it is not run here."""
    asked = Cell(
        dataset="mnist", data_dir=None, preset="small", epsilon=epsilon, delta=1e-5,
        method=method, seed=seed, device="cpu",
    )  # fmt: skip
    name = asked.name
    cell = {
        "method": method,
        "metrics": METRICS | {"cnn_accuracy": cnn_accuracy},
        "settings": asked.settings(),
    }
    if epsilon:
        cell |= {
            "epsilon": epsilon - 0.01, "neighboring_relation": "replace-one",
            "published_epsilon": 1.0, "published_accounting": "Renyi", "training_seconds": 60.0,
        }  # fmt: skip
        samples = np.zeros((10, 8, 28, 28), np.uint8)
        ResultsFolder(folder).keep_samples(name, samples)
    ResultsFolder(folder).keep(name, cell)


@pytest.fixture
def finished(tmp_path) -> Path:
    """A folder with real images, and two seeds of DP-MERF at each of two epsilons."""
    ResultsFolder(tmp_path).open({"table": 1, "dataset": "mnist", "preset": "small", "delta": 1e-5})
    keep(tmp_path, "real", 0, 0.99)
    for seed, accuracy in enumerate((0.9, 0.8)):
        keep(tmp_path, "dp-merf", seed, accuracy, 10.0)
        keep(tmp_path, "dp-merf", seed, accuracy - 0.2, 1.0)
    return tmp_path


def run(asked: Table1) -> dict:
    return asked.run(Console(file=io.StringIO()))


def test_finished_cells_are_not_run_again_and_become_rows_over_seeds(finished):
    real, merf = run(table(finished))["rows"]
    assert (real["method"], real["seeds"], real["cnn_accuracy"]) == ("real images", 1, 0.99)
    assert (merf["method"], merf["seeds"], merf["epsilon"]) == ("DP-MERF", 2, 9.99)
    assert merf["cnn_accuracy"] == pytest.approx(0.85)
    assert merf["cnn_accuracy_deviation"] == pytest.approx(0.0707, abs=1e-4)
    assert real["published"]["CNN"] == 0.99


def test_several_epsilons_are_rows_of_their_own_in_one_folder(finished):
    rows = run(table(finished, epsilons=(1.0, 10.0)))["rows"]
    assert [(row["method"], row.get("epsilon")) for row in rows] == [
        ("real images", None), ("DP-MERF", 0.99), ("DP-MERF", 9.99),
    ]  # fmt: skip
    assert rows[1]["cnn_accuracy"] == pytest.approx(0.65)


def test_the_folder_holds_table_notes_and_pictures(finished):
    run(table(finished))
    text = (finished / "table.md").read_text()
    assert "| DP-MERF | 8.00 ± 0.00 | 12.0 ± 0.0 |" in text
    assert "- 6000 samples train the classifiers" in text
    assert len(json.loads((finished / "table.json").read_text())["rows"]) == 2
    assert (finished / "table.csv").read_text().count("\n") == 3
    for name in ("samples.png", "quality-against-epsilon.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_a_folder_of_another_data_set_is_refused(finished):
    with pytest.raises(ValueError, match="dataset=fashion-mnist must be mnist"):
        run(table(finished, dataset="fashion-mnist"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilons": (0.0,)}, "epsilon=0.0 must be > 0"),
        ({"epsilons": ()}, "epsilons=0 must be a whole number >= 1"),
        ({"methods": ("dcgan",)}, "methods=.*dcgan"),
        ({"epsilons": (10.0, 10.0)}, "10.0, 10.0: each may be named once"),
        ({"methods": ("dp-merf", "dp-merf")}, "dp-merf, dp-merf: each may be named once"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"seeds": -1}, "seeds=-1"),
        ({"device": "gpu"}, "device='gpu' must be one of"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, **changed)
