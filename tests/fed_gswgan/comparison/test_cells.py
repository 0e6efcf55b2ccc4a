"""Cells on tiny data and a method that copies its images, run as a table runs them."""

from dataclasses import dataclass, replace

import pytest
import torch

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.training import TrainedBaseline
from fed_gswgan.comparison import cells
from fed_gswgan.comparison.cells import Cell, run_cell
from fed_gswgan.comparison.results_folder import ResultsFolder
from fed_gswgan.data.whole_dataset import WholeDataset
from fed_gswgan.evaluation.distances import SMALL, inception_score
from fed_gswgan.evaluation.samplers import draw_samples
from fed_gswgan.evaluation.table import in_bytes, table_judge
from fed_gswgan.privacy.mechanism import NeighboringRelation

TINY = replace(
    SMALL, name="tiny", classifier_samples=40, lenet_epochs=1, score_training=20,
    distance_samples=30, distance_images=30, linear_svc_iterations=50,
)  # fmt: skip


def striped(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Images whose class is where a dark stripe lies."""
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

    title = "copying"

    def settings(self, preset: str) -> Settings:
        return Settings()

    def train(self, preset: str, **arguments) -> TrainedBaseline:
        assert torch.equal(arguments["images_NCHW"], DATA.train_images_NCHW)
        release = DeclaredRelease(
            what="nothing much", mu=0.1, rounds=1, relation=NeighboringRelation.REPLACE_ONE
        )
        return TrainedBaseline(
            sampler=striped,
            releases=(release,),
            published_epsilon=1.0,
            published_accounting="none",
        )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "open_whole_dataset", lambda *place: DATA)
    monkeypatch.setattr(cells, "METHODS", {"copying": Copying()})
    monkeypatch.setattr(cells, "metric_size", lambda preset, device: TINY)
    ResultsFolder(tmp_path).open({})
    return tmp_path


def cell(method: str) -> Cell:
    return Cell(
        dataset="mnist", data_dir=None, preset="small", epsilon=10.0, delta=1e-5, method=method,
        seed=0, device="cpu",
    )  # fmt: skip


def test_real_images_leave_the_judge_that_then_judges_every_method(folder, monkeypatch):
    run_cell(cell("real"), folder)
    monkeypatch.setattr(cells, "table_judge", None)  # nobody trains another
    name = cell("copying").name
    run_cell(cell("copying"), folder)

    results = ResultsFolder(folder)
    found, real = results.read(name), results.read("real-0")
    labels = torch.arange(TINY.classifier_samples) % 4
    samples = in_bytes(draw_samples(striped, labels, "table", cells.EVALUATION_SEED))
    judge = table_judge(DATA, TINY, cells.EVALUATION_SEED, lambda line: None)
    assert found["metrics"]["inception_score"] == inception_score(judge, samples, 0)
    assert found["metrics"]["average_accuracy"] > 0.6
    assert real["metrics"]["calibrated_accuracy"] == 1
    assert 0 < found["epsilon"] < 10
    assert results.samples(name).shape == (4, 8, 28, 28)


def test_a_cell_is_finished_until_its_settings_change(folder, monkeypatch):
    results, asked = ResultsFolder(folder), cell("real")
    run_cell(asked, folder)
    assert results.finished(asked.name, asked.settings())
    changed = replace(TINY, lenet_epochs=2)
    monkeypatch.setattr(cells, "metric_size", lambda preset, device: changed)
    assert not results.finished(asked.name, asked.settings())


def test_a_method_before_real_images_is_refused_before_it_trains(folder):
    with pytest.raises(FileNotFoundError, match=r"real-0\.json"):
        run_cell(cell("copying"), folder)
