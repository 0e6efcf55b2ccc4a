"""Metrics of a run, what they stand beside, and the picture of both."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.registry import open_source
from fed_gswgan.evaluation import report
from fed_gswgan.evaluation.samplers import pool_sampler
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import finite_json
from server.evaluation import CLIENTS, HELD_OUT, PRIOR, SAMPLES, Evaluation

pytestmark = pytest.mark.usefixtures("task_identity")


def test_metrics_stand_in_the_summary_with_their_references_and_in_every_nth_round(
    small_run, few_steps
):
    folder = small_run(evaluation_samples=40, evaluate_every=2)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["references"]) == {CLIENTS}
    for found in (summary["metrics"], summary["references"][CLIENTS]):
        assert 0 <= found["label_agreement"] <= 1
        assert found["sample_count"] == 40
    measured = [line["evaluation"] for line in read_rounds(folder)]
    assert [bool(found) for found in measured] == [False, True, False, True]
    assert measured[-1]["label_agreement"] == summary["metrics"]["label_agreement"]
    assert (folder / "side-by-side.png").exists()


def test_references_and_metrics_can_be_left_out(small_run, few_steps):
    folder = small_run(evaluation_samples=40, evaluation_references=False, rounds=1)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["references"] == summary["nearest_training_image"] == {}
    nothing = small_run("nothing", rounds=1)
    assert json.loads((nothing / "summary.json").read_text())["references"] == {}
    assert not (nothing / "side-by-side.png").exists()


def blank_paper(labels_B, seed):
    return torch.zeros(len(labels_B), 1, 28, 28)


def evaluation_of(simulated=True, **changed):
    table = {"dataset": "digits", "noise-stddev": 1.0, "evaluation-samples": 60, **changed}
    config = Config.from_table(table)
    return Evaluation(config, open_source(config.shared), simulated)


def test_real_images_are_at_hand_in_simulations_alone_and_do_better_than_blank_paper(few_steps):
    assert evaluation_of(simulated=False).reference_metrics() == {}
    evaluation = evaluation_of()
    ((title, real),) = evaluation.reference_metrics().items()
    assert title == CLIENTS
    blank = evaluation.metrics(blank_paper)
    assert real["frechet_distance"] < blank["frechet_distance"]


def test_samples_that_are_no_images_give_no_metrics_and_a_reason(few_steps):
    found = evaluation_of().metrics(lambda labels_B, seed: blank_paper(labels_B[:2], seed))
    assert found["label_agreement"] is None
    assert "samples" in found["not_evaluated"]


def test_whatever_fails_in_the_metrics_the_rest_of_the_run_is_written(
    small_run, few_steps, monkeypatch
):
    def broken(*of):
        raise RuntimeError("linalg.eigvals: did not converge")

    monkeypatch.setattr(report, "frechet_distance", broken)
    folder = small_run(rounds=1, evaluation_samples=40)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["label_agreement"] is None
    assert summary["notes"] == ["no metrics: RuntimeError: linalg.eigvals: did not converge"]
    assert summary["privacy"]["epsilon_max"] > 0
    assert (folder / "report.html").exists()


def test_a_metric_that_is_no_number_is_null_and_the_reason_is_in_the_notes(
    small_run, few_steps, monkeypatch
):
    monkeypatch.setattr(report, "kernel_distance", lambda *of: math.nan)
    folder = small_run(rounds=1, evaluation_samples=40, evaluation_references=False)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["kernel_distance"] is None
    assert summary["metrics"]["frechet_distance"] > 0
    (note,) = (note for note in summary["notes"] if "kernel" in note)
    assert note.startswith("metrics, kernel_distance is nan: undefined")
    assert note in (folder / "report.html").read_text()


@pytest.mark.parametrize("images", ["blank", "one"])
def test_blank_and_single_held_out_images_cost_no_summary(monkeypatch, few_steps, images):
    evaluation = evaluation_of()
    count = 1 if images == "one" else 60
    blank = LabelledImages(np.zeros((count, 1, 28, 28), np.float32), np.arange(count) % 10)
    monkeypatch.setattr(evaluation._source, "held_out", lambda: blank)
    found, _ = finite_json(evaluation.metrics(blank_paper))
    json.dumps(found, allow_nan=False)
    if images == "one":
        assert found["not_evaluated"] == "held-out-images=1 must be a whole number >= 2"


def test_the_prior_is_a_reference_and_a_block_of_the_picture(few_steps, tmp_path):
    evaluation = evaluation_of(prior="strokes")
    assert set(evaluation.reference_metrics()) == {PRIOR, CLIENTS}
    evaluation.save_picture(blank_paper, tmp_path / "p.png")
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("L"))[40:]  # below the titles
    blocks = np.array_split(pixels[:, 30:], 3, axis=1)
    assert [bool(block.min() < 128) for block in blocks] == [False, True, True]


def test_a_generator_that_repeats_training_images_is_seen(few_steps):
    evaluation = evaluation_of()
    source = evaluation._source
    shards = [source.shard(writer) for writer in source.writer_ids]
    images = torch.from_numpy(np.concatenate([shard.images for shard in shards]))
    labels = torch.from_numpy(np.concatenate([shard.labels for shard in shards]))
    found = evaluation.nearest_training_images(pool_sampler(images, labels))
    assert found[SAMPLES]["median"] < 0.2  # greys of the held-out images are not quite theirs
    assert found[HELD_OUT]["first_percentile"] > 0.5
    few = evaluation_of(**{"max-clients": 1, "cohort-size": 1})
    other = few.nearest_training_images(pool_sampler(images, labels))[SAMPLES]
    assert other["median"] > found[SAMPLES]["median"]  # most are images of nobody who trains
    blank = evaluation.nearest_training_images(blank_paper)[SAMPLES]
    assert blank["median"] > found[HELD_OUT]["median"]
    assert evaluation_of(simulated=False).nearest_training_images(blank_paper) == {}


@pytest.mark.parametrize("place", ["held_out", "shard"])
def test_data_that_do_not_serve_cost_the_comparison_and_not_the_run(
    monkeypatch, few_steps, tmp_path, place
):
    evaluation = evaluation_of()

    def damaged(*of):
        raise ValueError("no image of these classes")

    monkeypatch.setattr(evaluation._source, place, damaged)
    assert evaluation.nearest_training_images(blank_paper) == {}
    assert (evaluation.metrics(blank_paper)["label_agreement"] is None) == (place == "held_out")
    real = evaluation.reference_metrics().get(CLIENTS, {})
    assert real.get("label_agreement") is None
    evaluation.save_picture(blank_paper, tmp_path / "p.png")
    assert (tmp_path / "p.png").exists() == (place == "shard")
