import dataclasses
import json

import pytest
import torch

from fed_gswgan.evaluation.report import EvaluationReport, evaluate


@pytest.fixture(scope="module")
def perfect(spots) -> EvaluationReport:
    labels = spots.labels(200)
    return evaluate(spots.draw, spots.draw(labels, 11), labels, 8, 400, 0, spots.steps)


@pytest.fixture(scope="module")
def useless(spots) -> EvaluationReport:
    labels = spots.labels(200)
    return evaluate(spots.noise, spots.draw(labels, 11), labels, 8, 400, 0, spots.steps)


def test_a_sampler_of_real_images_does_well_in_everything(perfect):
    assert perfect.inception_score > 4
    assert perfect.label_agreement > 0.95
    assert perfect.downstream_accuracy > 0.95
    assert perfect.judge_accuracy > 0.9


def test_a_sampler_of_noise_does_badly_in_everything(perfect, useless):
    assert useless.inception_score < perfect.inception_score / 2
    assert useless.frechet_distance > 5 * perfect.frechet_distance
    assert useless.label_agreement < 0.25
    assert useless.downstream_accuracy < 0.35


def test_the_judge_does_not_depend_on_the_sampler(perfect, useless):
    assert perfect.judge_accuracy == useless.judge_accuracy
    assert perfect.judge_balanced_accuracy == useless.judge_balanced_accuracy


@pytest.mark.usefixtures("keeps_global_random_state")
def test_same_seed_same_report_but_for_the_seconds(spots):
    labels = spots.labels(40)
    images = spots.draw(labels, 11)
    first, again, other = (
        evaluate(spots.draw, images, labels, 8, 80, seed, 10) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_the_report_is_json_by_name(perfect):
    numbers = json.loads(json.dumps(perfect.to_dict(), allow_nan=False))
    assert set(numbers) == {field.name for field in dataclasses.fields(EvaluationReport)}
    assert numbers["held_out_images"] == 200
    assert numbers["sample_count"] == 400
    assert numbers["seconds"] > 0
    assert "200 held-out real images of 8 of 8 classes" in numbers["judge_note"]


def test_samples_are_asked_for_uniformly_and_in_the_proportions_of_the_real_ones(spots):
    labels = torch.tensor([0] * 60 + [3] * 20)
    asked = []

    def sampler(labels, seed):
        asked.append(labels)
        return spots.draw(labels, seed)

    report = evaluate(sampler, spots.draw(labels, 11), labels, 8, 40, 0, 5)
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
def test_held_out_data_of_another_kind_are_refused(spots, images, labels, words):
    with pytest.raises(ValueError, match=f"held-out {words}"):
        evaluate(spots.draw, images, labels, 8, 10, 0, 5)
