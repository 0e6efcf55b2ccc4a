import pytest
import torch

from fed_gswgan.evaluation import report as module
from fed_gswgan.evaluation.report import judge_accuracy


def test_a_learnable_set_gives_a_good_judge(spots):
    labels = spots.labels(240)
    found = judge_accuracy(spots.draw(labels, 10), labels, spots.classes, 0, spots.steps)
    assert found.accuracy > 0.9
    assert found.balanced_accuracy > 0.9


def test_labels_without_meaning_give_a_judge_that_guesses(spots):
    labels = spots.labels(240)
    shuffled = labels[torch.randperm(240, generator=torch.Generator().manual_seed(0))]
    found = judge_accuracy(spots.draw(labels, 10), shuffled, spots.classes, 0, spots.steps)
    assert found.accuracy < 0.3


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


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_seed_decides(spots):
    labels = spots.labels(80)
    images = spots.draw(labels, 10)
    first = judge_accuracy(images, labels, spots.classes, 1, 10)
    assert first == judge_accuracy(images, labels, spots.classes, 1, 10)
