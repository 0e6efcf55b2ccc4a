"""The first table on images of 4 classes and a method that copies them."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.registry import METHODS, methods_for
from fed_gswgan.baselines.training import TrainedBaseline
from fed_gswgan.data.whole_dataset import WholeDataset
from fed_gswgan.evaluation.distances import SMALL, inception_score
from fed_gswgan.evaluation.samplers import draw_samples
from fed_gswgan.evaluation.table import in_bytes, table_judge
from fed_gswgan.privacy.mechanism import NeighboringRelation
from simulations.tables import table1
from simulations.tables.cells import run_cells
from simulations.tables.results import ResultsFolder
from simulations.tables.table1 import Cell, Table1

TINY = replace(
    SMALL, name="tiny", classifier_samples=40, lenet_epochs=1, score_training=20,
    distance_samples=30, distance_images=30, linear_svc_iterations=50,
)  # fmt: skip
METRICS = {
    "inception_score": 8.0,
    "frechet_distance": 12.0,
    "features": "classifier",
    "score_classifier": "small",
    "score_classifier_accuracy": 0.98,
    "classifier_samples": 6000,
    "split": "tested on the 10000 real test images",
    "notes": ["LeNet: 20 epochs"],
}


def striped(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Images whose class is the place of a dark stripe."""
    images = 0.3 * torch.rand(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 6 * label : 6 * label + 5] += 0.7
    return images


LABELS = torch.arange(80) % 4
DATA = WholeDataset(
    dataset="mnist",
    train_images_NCHW=striped(LABELS, 0),
    train_labels_N=LABELS,
    test_images_NCHW=striped(LABELS, 1),
    test_labels_N=LABELS,
    class_names=tuple("abcd"),
)


@dataclass(frozen=True)
class Settings:
    steps: int = 3


class Copying:
    """A method whose samples are what real images are."""

    title, dataset, private = "copying", "", True

    def settings(self, preset: str) -> Settings:
        return Settings()

    def imported(self) -> None:
        """Import nothing."""

    def train(self, preset: str, **arguments) -> TrainedBaseline:
        assert torch.equal(arguments["images_NCHW"], DATA.train_images_NCHW)
        relation = NeighboringRelation.REPLACE_ONE
        release = DeclaredRelease(what="nothing much", mu=0.1, rounds=1, relation=relation)
        return TrainedBaseline(
            sampler=striped,
            releases=(release,),
            published_epsilon=1.0,
            published_accounting="none",
        )


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(table1, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(table1, "open_whole_dataset", lambda *place: DATA)
    monkeypatch.setattr(table1, "METHODS", {"copying": Copying()})
    monkeypatch.setattr(table1, "metric_size", lambda preset, device: TINY)


def table(folder: Path, **changed) -> Table1:
    settings = dict(
        dataset="mnist", data_dir=folder, preset="small", methods=("dp-merf",), epsilons=(10.0,),
        delta=1e-5, seeds=2, folder=folder, workers=1,
    )  # fmt: skip
    return Table1(**{**settings, **changed})


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_real_images_leave_the_judge_that_then_judges_every_method(tmp_path, tiny, monkeypatch):
    asked = table(tmp_path, methods=("copying",))
    results, real, copying = ResultsFolder(tmp_path), Cell(asked), Cell(asked, "copying", 10.0)
    results.open({})
    with pytest.raises(FileNotFoundError, match=r"real-0\.json"):
        copying.run()
    real.run()
    with monkeypatch.context() as patch:
        patch.setattr(table1, "table_judge", None)  # no second one is trained
        copying.run()
    found = results.read(copying.name)
    samples = draw_samples(striped, torch.arange(40) % 4, "table", table1.EVALUATION_SEED)
    judge = table_judge(DATA, TINY, table1.EVALUATION_SEED, lambda line: None)
    assert found["metrics"]["inception_score"] == inception_score(judge, in_bytes(samples), 0)
    assert found["metrics"]["average_accuracy"] > 0.6
    assert results.read(real.name)["metrics"]["calibrated_accuracy"] == 1
    assert 0 < found["epsilon"] < 10
    assert results.samples(copying.name).shape == (4, 8, 28, 28)
    assert copying.finished
    changed = replace(TINY, lenet_epochs=2)
    monkeypatch.setattr(table1, "metric_size", lambda preset, device: changed)
    assert not copying.finished


@pytest.fixture
def finished(tmp_path) -> Path:
    """A folder with real images, and two seeds of DP-MERF at each of two epsilons."""
    results, asked = ResultsFolder(tmp_path), table(tmp_path)
    results.open({"table": 1, "dataset": "mnist", "preset": "small", "delta": 1e-5})
    for cell, cnn_accuracy in (
        (Cell(asked), 0.99),
        (Cell(asked, "dp-merf", 10.0, 0), 0.9),
        (Cell(asked, "dp-merf", 10.0, 1), 0.8),
        (Cell(asked, "dp-merf", 1.0, 0), 0.7),
        (Cell(asked, "dp-merf", 1.0, 1), 0.6),
    ):
        kept = {
            "method": cell.method,
            "metrics": METRICS | {"cnn_accuracy": cnn_accuracy},
            "settings": cell.settings(),
        }
        if cell.epsilon:
            kept |= {
                "epsilon": cell.epsilon - 0.01, "neighboring_relation": "replace-one",
                "published_epsilon": 11.6 if cell.epsilon == 10.0 else None,
                "published_accounting": "Renyi", "training_seconds": 60.0,
            }  # fmt: skip
            results.keep_samples(cell.name, np.zeros((10, 8, 28, 28), np.uint8))
        results.keep(cell.name, kept)
    return tmp_path


def test_finished_cells_are_rows_over_seeds_in_tables_and_pictures(finished):
    real, low, high = table(finished, epsilons=(1.0, 10.0)).run(quiet())["rows"]
    assert (real["method"], real["seeds"], real["cnn_accuracy"]) == ("real images", 1, 0.99)
    assert (low["epsilon"], low["cnn_accuracy"]) == (0.99, pytest.approx(0.65))
    assert (high["method"], high["seeds"], high["epsilon"]) == ("DP-MERF", 2, 9.99)
    assert high["cnn_accuracy"] == pytest.approx(0.85)
    assert high["published_epsilon"] == 11.6
    assert "published_epsilon" not in low  # of a method whose authors' accounting reads the data
    assert high["cnn_accuracy_deviation"] == pytest.approx(0.0707, abs=1e-4)
    assert real["published"]["CNN"] == 0.99
    text = (finished / "table.md").read_text()
    assert "| DP-MERF | 8.00 ± 0.00 | 12.0 ± 0.0 |" in text
    assert "- 6000 samples train the classifiers" in text
    for name in ("samples.png", "quality-against-epsilon.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": "emnist"}, "dataset='emnist' must be one of"),
        ({"epsilons": (0.0,)}, "epsilon=0.0 must be > 0"),
        ({"epsilons": ()}, "epsilons=0 must be a whole number >= 1"),
        ({"methods": ("dcgan",)}, "methods=.*dcgan"),
        ({"epsilons": (10.0, 10.0)}, "10.0, 10.0: each may be named once"),
        ({"methods": ("dp-merf", "dp-merf")}, "dp-merf, dp-merf: each may be named once"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"seeds": 0}, "seeds=0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, **changed)


def test_a_cell_that_fails_is_named_with_its_error(tmp_path):
    ResultsFolder(tmp_path).open({})
    failing, finished = Cell(table(tmp_path), "dp-merf", 10.0), []
    message = r"dp-merf-epsilon10.0-0 failed.*FileNotFoundError.*MNIST"
    with pytest.raises(RuntimeError, match=message):
        run_cells([failing], 1, quiet(), lambda: finished.append(1))
    assert not finished


def test_the_settings_of_every_method_can_be_kept(tmp_path):
    asked = table(tmp_path, methods=tuple(METHODS), epsilons=(1.0, 10.0), seeds=2)
    cells = asked._cells()
    assert [cell.method for cell in cells if cell.epsilon == 0] == ["real", "prior"]
    assert len(cells) == 2 + 2 * 2 * (len(METHODS) - 1)
    for cell in cells:
        assert json.loads(json.dumps(cell.settings())) == cell.settings()


def test_a_prior_of_digits_is_refused_for_garments(tmp_path):
    with pytest.raises(
        ValueError, match="methods=prior must be left out for dataset=fashion-mnist"
    ):
        table(tmp_path, dataset="fashion-mnist", methods=("prior",))
    every = methods_for("fashion-mnist")
    assert {"gs-wgan", "gs-wgan-cramer"} < set(every)
    assert table(tmp_path, dataset="fashion-mnist", methods=every).methods == every
