import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from fed_gswgan.evaluation import classifier as module
from fed_gswgan.evaluation.classifier import (
    accuracy,
    deform,
    downstream_accuracy,
    predicted_labels,
    train_classifier,
)


def one_pixel_image(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, row, column] = 1
    return image


def test_no_deformation_is_the_identity(monkeypatch):
    for name in ("MAX_SHIFT_PIXELS", "MAX_ROTATION_RADIANS", "MAX_SCALING"):
        monkeypatch.setattr(module, name, 0.0)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deform(images, np.random.default_rng(0)), images)


def test_a_shift_stays_within_two_pixels_and_reaches_over_one(monkeypatch):
    for name in ("MAX_ROTATION_RADIANS", "MAX_SCALING"):
        monkeypatch.setattr(module, name, 0.0)
    images = one_pixel_image(14, 14).expand(200, 1, 28, 28)
    ink = deform(images, np.random.default_rng(0))[:, 0]
    pixels = torch.arange(28.0)
    down = (ink.sum(dim=2) * pixels).sum(dim=1) - 14
    across = (ink.sum(dim=1) * pixels).sum(dim=1) - 14
    for moved in (down, across):
        assert moved.abs().max() <= 2 + 1e-4
        assert moved.min() < -1
        assert moved.max() > 1


def test_what_moves_in_from_outside_is_paper(monkeypatch):
    monkeypatch.setattr(module, "MAX_SHIFT_PIXELS", 28.0)
    deformed = deform(torch.ones(100, 1, 28, 28), np.random.default_rng(0))
    assert deformed.min() == 0


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_generator_decides_the_deformation():
    images = one_pixel_image(10, 10).expand(5, 1, 28, 28)
    first = deform(images, np.random.default_rng(1))
    assert torch.equal(first, deform(images, np.random.default_rng(1)))
    assert not torch.equal(first, deform(images, np.random.default_rng(2)))


@pytest.mark.usefixtures("keeps_global_random_state")
def test_same_seed_same_weights_and_another_seed_others(spots):
    labels = spots.labels(40)
    images = spots.draw(labels, 0)
    first, again, other = (
        train_classifier(images, labels, spots.classes, seed, steps=3)(images) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_trained_classifier_is_in_eval_mode_and_needs_no_batch(spots, judge):
    labels = spots.labels(16)
    images = spots.draw(labels, 2)
    assert not judge.training
    torch.testing.assert_close(judge(images[:1]), judge(images)[:1])


def test_predictions_of_many_batches_keep_their_order(spots, judge):
    labels = spots.labels(1203)
    images = spots.draw(labels, 3)
    assert torch.equal(predicted_labels(judge, images), judge(images).argmax(dim=1))


def test_accuracy_is_the_share_of_right_labels(spots, judge):
    images = spots.draw(spots.labels(40), 4)
    labels = predicted_labels(judge, images)
    labels[:10] = (labels[:10] + 1) % spots.classes
    assert accuracy(judge, images, labels) == 0.75


def test_300_digits_make_a_good_judge_of_the_other_digits():
    digits = load_digits()
    small = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    images = functional.interpolate(small, size=(28, 28), mode="bilinear")
    labels = torch.tensor(digits.target)
    order = np.random.default_rng(0).permutation(len(images))
    seen, unseen = order[:300], order[300:]
    classifier = train_classifier(images[seen], labels[seen], num_classes=10, seed=0)
    assert accuracy(classifier, images[unseen], labels[unseen]) > 0.95


def test_too_few_steps_are_refused(spots):
    labels = spots.labels(8)
    with pytest.raises(ValueError, match="classifier-steps=1"):
        train_classifier(spots.draw(labels, 0), labels, spots.classes, 0, steps=1)


@pytest.mark.parametrize(
    ("kind", "turn", "least", "most"),
    [("draw", 0, 0.95, 1.0), ("noise", 0, 0.0, 0.35), ("draw", 4, 0.0, 0.05)],
    ids=["like real images", "noise", "mislabelled"],
)
def test_downstream_accuracy_rewards_right_labels(spots, kind, turn, least, most):
    labels, test_labels = spots.labels(320), spots.labels(160)
    samples = getattr(spots, kind)((labels + turn) % spots.classes, 8)
    images = spots.draw(test_labels, 9)
    found = downstream_accuracy(samples, labels, images, test_labels, 8, 0, spots.steps)
    assert least <= found <= most
