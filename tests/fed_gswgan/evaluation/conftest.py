"""Spots on a ring: eight classes that a small classifier learns in a few steps."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fed_gswgan.evaluation.classifier import ImageClassifier, train_classifier

CLASSES = 8
STEPS = 60


@dataclass(frozen=True)
class Spots:
    """Draws images, and serves as a perfect sampler and as a useless one."""

    classes: int = CLASSES
    steps: int = STEPS

    def draw(self, labels_N: Tensor, seed: int) -> Tensor:
        """One bright spot 8 pixels from the centre, in the direction of the class, and grain."""
        draws = torch.Generator().manual_seed(seed)
        angle_N = 2 * math.pi * labels_N / self.classes
        centre_N2 = 13.5 + 8 * torch.stack([angle_N.sin(), angle_N.cos()], dim=1)
        centre_N2 = centre_N2 + torch.randn(len(labels_N), 2, generator=draws)
        pixels = torch.arange(28.0)
        offset_NHW2 = torch.stack(
            torch.broadcast_tensors(
                pixels[None, :, None] - centre_N2[:, 0, None, None],
                pixels[None, None, :] - centre_N2[:, 1, None, None],
            ),
            dim=-1,
        )
        spots_NHW = torch.exp(-offset_NHW2.square().sum(dim=-1) / 8)
        grain_NHW = 0.2 * torch.rand(spots_NHW.shape, generator=draws)
        return (0.8 * spots_NHW + grain_NHW)[:, None]

    def noise(self, labels_N: Tensor, seed: int) -> Tensor:
        """No spot at all, whatever is asked for."""
        draws = torch.Generator().manual_seed(seed)
        return torch.rand(len(labels_N), 1, 28, 28, generator=draws)

    def labels(self, count: int) -> Tensor:
        return torch.arange(count) % self.classes


@pytest.fixture(scope="session")
def spots() -> Spots:
    return Spots()


@pytest.fixture(scope="session")
def judge(spots: Spots) -> ImageClassifier:
    labels = spots.labels(160)
    return train_classifier(spots.draw(labels, 1), labels, spots.classes, 0, spots.steps)


@pytest.fixture
def keeps_global_random_state():
    """Fail a test after which the caller's next random number is another one."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
