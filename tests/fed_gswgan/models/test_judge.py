"""The second judge that ships: it reads drawings that it was not shown."""

import torch

from fed_gswgan.data.characters import CHARACTERS
from fed_gswgan.priors.prior import open_judge
from fed_gswgan.priors.strokes import draw_pool
from fed_gswgan.seeding import SeedStream


@torch.no_grad()
def test_it_reads_unseen_drawings_of_digits():
    judge = open_judge()
    assert not judge.training
    drawn = draw_pool("0123456789", 20, SeedStream(12345)).flatten(0, 1)[:, None]
    logits = judge(drawn)
    assert logits.shape == (200, len(CHARACTERS))
    right = logits[:, :10].argmax(1) == torch.arange(10).repeat_interleave(20)
    assert right.float().mean() > 0.9


@torch.no_grad()
def test_a_feature_is_a_mean_over_places_of_one_image_alone():
    judge = open_judge()
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    features = judge.features(images)
    assert features.shape == (3, judge.logits.in_features)
    assert torch.allclose(judge.features(images[1:2])[0], features[1], atol=1e-5)
    assert torch.allclose(judge(images), judge.logits(features), atol=1e-5)
