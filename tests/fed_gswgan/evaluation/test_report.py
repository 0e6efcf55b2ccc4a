import dataclasses
import json

import numpy as np
import pytest
import torch

from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.evaluation import report as module
from fed_gswgan.evaluation.report import (
    EvaluationReport,
    HeldOutJudge,
    held_out_judge,
    in_greys_of,
    judge_accuracy,
    metric_notes,
)
from tests.fed_gswgan.colour_images import ColourSource


def test_halves_share_no_image_and_split_each_class_evenly(monkeypatch):
    halves = {}

    def train(images, labels, *rest):
        halves["train"] = images, labels

    def predict(judge, images):
        halves["test"] = images
        return torch.zeros(len(images), dtype=torch.int64)

    monkeypatch.setattr(module, "train_classifier", train)
    monkeypatch.setattr(module, "predicted_labels", predict)
    labels = torch.tensor([0] * 30 + [1] * 10)
    images = torch.arange(40.0).reshape(40, 1, 1, 1)
    found = judge_accuracy(images, labels, num_classes=2, seed=0)

    train_ids = set(halves["train"][0].flatten().tolist())
    assert not train_ids & set(halves["test"].flatten().tolist())
    assert len(train_ids) == 20
    assert halves["train"][1].bincount().tolist() == [15, 5]
    # Always answering 0 is right for 15 of 20 images and for one of two classes.
    assert found == (0.75, 0.5)


def judge_of(spots, images=200, seed=0, steps=None) -> HeldOutJudge:
    labels = spots.labels(images)
    return HeldOutJudge(spots.draw(labels, 11), labels, 8, seed, steps or spots.steps)


@pytest.fixture(scope="module")
def perfect(spots) -> EvaluationReport:
    return judge_of(spots).report(spots.draw, 400)


@pytest.fixture(scope="module")
def useless(spots) -> EvaluationReport:
    return judge_of(spots).report(spots.noise, 400)


def test_a_sampler_of_real_images_does_well_in_everything(perfect):
    assert perfect.inception_score > 4
    assert perfect.label_agreement > 0.95
    assert perfect.downstream_accuracy > 0.95
    assert perfect.judge_accuracy > 0.9


def test_a_sampler_of_noise_does_badly_in_everything(perfect, useless):
    assert useless.inception_score < perfect.inception_score / 2
    assert useless.frechet_distance > 5 * perfect.frechet_distance
    assert useless.stroke_frechet_distance > 5 * perfect.stroke_frechet_distance
    assert useless.label_agreement < 0.25
    assert useless.downstream_accuracy < 0.35


@pytest.mark.usefixtures("keeps_global_random_state")
def test_same_seed_same_report_but_for_the_seconds(spots):
    first, again, other = (
        judge_of(spots, 40, seed, 10).report(spots.draw, 80) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_judge_measures_any_number_of_generators_alike(spots):
    judge = judge_of(spots, 40, 0, 10)
    noise, first = judge.report(spots.noise, 80), judge.report(spots.draw, 80)
    assert first == judge.report(spots.draw, 80) != noise


def test_samples_are_rounded_to_the_greys_that_real_images_have():
    real = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1)
    samples = torch.tensor([0.1, 0.13, 0.62, 0.63, 1.0]).reshape(5, 1, 1, 1)
    assert in_greys_of(real, samples).flatten().tolist() == [0, 0.25, 0.25, 1, 1]
    many = torch.linspace(0, 1, 257).reshape(-1, 1, 1, 1)
    assert in_greys_of(many, samples) is samples


def test_the_report_is_json_by_name(perfect):
    numbers = json.loads(json.dumps(perfect.to_dict(), allow_nan=False))
    assert set(numbers) == {field.name for field in dataclasses.fields(EvaluationReport)}
    assert numbers["held_out_images"] == 200
    assert numbers["sample_count"] == 400
    assert numbers["seconds"] > 0
    assert "200 held-out real images of 8 of 8 classes" in numbers["judge_note"]


@pytest.mark.parametrize(("agreement", "at_chance"), [(0.1, True), (0.19, True), (0.25, False)])
def test_label_agreement_at_chance_is_a_note(agreement, at_chance):
    """Of 100 guesses among ten 10 are right, give or take 3: at most 19 within 3 deviations."""
    metrics = {"label_agreement": agreement, "classes": 10, "sample_count": 100}
    notes = metric_notes(metrics | {"judge_accuracy": 0.9})
    assert bool(notes) == at_chance
    assert all("at chance, 1 of 10 classes" in note for note in notes)
    assert metric_notes(dict.fromkeys(metrics)) == []


def test_samples_are_asked_for_uniformly_and_in_the_proportions_of_the_real_ones(spots):
    labels = torch.tensor([0] * 60 + [3] * 20)
    asked = []

    def sampler(labels, seed):
        asked.append(labels)
        return spots.draw(labels, seed)

    report = HeldOutJudge(spots.draw(labels, 11), labels, 8, 0, 5).report(sampler, 40)
    assert [batch.bincount().tolist() for batch in asked] == [[20, 0, 0, 20], [30, 0, 0, 10]]
    assert report.classes == 2


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(4, 28, 28), torch.zeros(4, dtype=torch.int64), "images"),
        (torch.full((4, 1, 28, 28), 255.0), torch.zeros(4, dtype=torch.int64), "images"),
        (torch.zeros(4, 1, 28, 28), torch.zeros(3, dtype=torch.int64), "labels"),
        (torch.zeros(4, 1, 28, 28), torch.full((4,), 8), "labels"),
        (torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int32), "labels"),
    ],
    ids=["shape", "range", "count", "class", "dtype"],
)
def test_held_out_data_of_another_kind_are_refused(images, labels, words):
    with pytest.raises(ValueError, match=f"held-out {words}"):
        HeldOutJudge(images, labels, 8, 0, 5)


LABELS = np.arange(60, dtype=np.int64) % 2


class HalfInked:
    """A source whose held-out images of one class are dark above, of the other below."""

    class_names = ("above", "below")

    def held_out(self) -> LabelledImages:
        return LabelledImages(half_inked(torch.from_numpy(LABELS), 7).numpy(), LABELS)


def half_inked(labels_B: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 * torch.rand(len(labels_B), 1, 28, 28, generator=generator)
    for image, label in zip(images, labels_B.tolist(), strict=True):
        image[:, 14 * label : 14 * label + 14] += 0.5
    return images


def test_a_generator_is_measured_on_the_images_that_no_client_holds():
    source = HalfInked()
    held_out = source.held_out()
    images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    found = held_out_judge(source).report(half_inked, 40)
    assert found == HeldOutJudge(images, labels, 2, 0).report(half_inked, 40)
    assert found.held_out_images == 60
    assert found.label_agreement == 1


def test_a_generator_of_colours_is_measured_in_their_shape():
    source = ColourSource()
    real = source.held_out()
    pools = {label: torch.from_numpy(real.images[real.labels == label]) for label in (0, 1)}

    def sampler(labels_B, seed):
        return torch.stack([pools[label][seed % 20] for label in labels_B.tolist()])

    found = held_out_judge(source).report(sampler, 40)
    assert found.label_agreement == 1
    assert found.downstream_accuracy == 1
    assert "stroke_frechet_distance" not in found.to_dict()  # of characters alone
    with pytest.raises(ValueError, match=r"must be torch.float32 \(40, 3, 32, 32\)"):
        held_out_judge(source).report(half_inked, 40)
