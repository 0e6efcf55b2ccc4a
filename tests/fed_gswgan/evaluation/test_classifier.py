import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.evaluation.classifier import (
    FEATURES,
    ImageClassifier,
    accuracy,
    predicted_labels,
    train_classifier,
)


def test_features_and_logits_have_the_promised_shapes():
    classifier = ImageClassifier(IMAGE_SHAPE, num_classes=62).eval()
    images = torch.zeros(3, 1, 28, 28)
    assert classifier.features(images).shape == (3, FEATURES)
    assert classifier(images).shape == (3, 62)


@pytest.mark.usefixtures("keeps_global_random_state")
def test_same_seed_same_weights_and_another_seed_others(spots):
    labels = spots.labels(40)
    images = spots.draw(labels, 0)
    first, again, other = (
        train_classifier(images, labels, spots.classes, seed, steps=3)(images) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_foreign_random_state_does_not_change_the_weights(spots):
    labels = spots.labels(40)
    images = spots.draw(labels, 0)
    first = train_classifier(images, labels, spots.classes, 0, steps=3)
    with torch.random.fork_rng(devices=[]):
        torch.rand(17)
        again = train_classifier(images, labels, spots.classes, 0, steps=3)
    assert torch.equal(first.logits.weight, again.logits.weight)


def test_a_trained_classifier_is_in_eval_mode_and_needs_no_batch(spots, judge):
    labels = spots.labels(16)
    images = spots.draw(labels, 2)
    assert not judge.training
    torch.testing.assert_close(judge(images[:1]), judge(images)[:1])


def test_training_works_where_gradients_are_switched_off(spots):
    labels = spots.labels(16)
    images = spots.draw(labels, 0)
    trained = train_classifier(images, labels, spots.classes, 0, steps=2)
    with torch.no_grad():
        again = train_classifier(images, labels, spots.classes, 0, steps=2)
    assert torch.equal(again.logits.weight, trained.logits.weight)


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
