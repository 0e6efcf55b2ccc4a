from itertools import pairwise

import numpy as np
import pytest
import torch

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.evaluation.classifier import ImageClassifier, accuracy, train_classifier
from fed_gswgan.evaluation.scores import (
    Vgg11,
    crop_and_flip,
    kept_score_classifier,
    train_score_classifier,
)


def silent(_line):
    pass


def test_vgg11_has_the_published_layers():
    vgg = Vgg11(10)
    convolutions = [part for part in vgg.modules() if isinstance(part, torch.nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert [part.padding[0] for part in convolutions] == [3, 1, 1, 1, 1, 1, 1, 1]
    widths = [1, 64, 128, 256, 256, 512, 512, 512, 512]
    expected = sum(9 * a * b + 3 * b for a, b in pairwise(widths)) + 5130
    assert sum(parameter.numel() for parameter in vgg.parameters()) == expected


def test_vgg11_brings_28_pixels_to_512_features_and_its_logits():
    vgg = Vgg11(10).eval()
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = vgg.features(images)
        assert features.shape == (2, 512)
        torch.testing.assert_close(vgg.logits(features), vgg(images))


def test_crops_are_shifts_of_up_to_four_pixels_and_half_of_them_mirrored():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 14, 9:12] = torch.tensor([0.2, 0.4, 1.0])  # brighter to the right
    changed = crop_and_flip(image.expand(2000, 1, 28, 28), np.random.default_rng(0))[:, 0]
    rows, columns = (changed == 1).nonzero(as_tuple=True)[1:]
    assert len(rows) == 2000
    assert sorted(set((rows - 14).tolist())) == list(range(-4, 5))
    mirrored = changed[torch.arange(2000), rows, columns - 1] == 0
    assert sorted(set((columns[~mirrored] - 11).tolist())) == list(range(-4, 5))
    assert sorted(set((columns[mirrored] - 16).tolist())) == list(range(-4, 5))
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.05)


def test_what_moves_in_from_outside_is_paper():
    changed = crop_and_flip(torch.ones(100, 1, 28, 28), np.random.default_rng(0))
    assert set(changed.unique().tolist()) == {0.0, 1.0}


def test_each_image_is_changed_by_itself_and_the_generator_decides():
    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0)).expand(
        6, -1, -1, -1
    )
    first = crop_and_flip(images, np.random.default_rng(1))
    assert torch.equal(first, crop_and_flip(images, np.random.default_rng(1)))
    assert not torch.equal(first, crop_and_flip(images, np.random.default_rng(2)))
    assert not torch.equal(first[0], first[1])


def test_the_small_one_is_the_classifier_of_the_other_metrics(spots, judge):
    labels = spots.labels(160)
    images = spots.draw(labels, 1)
    found = train_score_classifier(images, labels, 8, "small", spots.steps, 0, silent)
    assert isinstance(found, ImageClassifier)
    assert torch.equal(found(images), train_classifier(images, labels, 8, 0, spots.steps)(images))


def test_vgg11_learns(spots):
    labels = spots.labels(160)
    lines = []
    found = train_score_classifier(spots.draw(labels, 1), labels, 8, "vgg11", 2, 0, lines.append)
    assert isinstance(found, Vgg11)
    assert not found.training
    assert [line.split(",")[0] for line in lines] == ["vgg11: epoch 1 of 2", "vgg11: epoch 2 of 2"]
    assert 0 <= accuracy(found, spots.draw(labels, 2), labels) <= 1


def test_another_kind_is_refused(spots):
    with pytest.raises(ValueError, match="score-classifier='resnet' must be one of vgg11, small"):
        train_score_classifier(
            spots.draw(spots.labels(8), 1), spots.labels(8), 8, "resnet", 1, 0, silent
        )


def test_the_published_judge_refuses_images_of_another_shape():
    with pytest.raises(ValueError, match=r"vgg11 is published for images \(N, 1, 28, 28\)"):
        train_score_classifier(torch.zeros(8, 3, 32, 32), torch.arange(8), 8, "vgg11", 1, 0, silent)


@pytest.mark.parametrize(("kind", "amount"), [("small", 2), ("vgg11", 1)])
def test_a_kept_judge_says_what_it_said(kind, amount):
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    judge = train_score_classifier(images, labels, 4, kind, amount, 0, silent)
    again = kept_score_classifier(kind, DataSpec(IMAGE_SHAPE, 4), judge.state_dict())
    assert not again.training
    assert torch.equal(judge(images), again(images))
