"""Second judge: a reader of drawn characters whose features no method uses.

Distances in features that a method was fitted in flatter it, and a classifier of held-out writers
has seen the images that samples are compared with. This network has seen drawings alone. It is
unlike that of ``fed_gswgan.models.features``: patches in place of convolutions, and dense layers
that mix places and channels in turn.

Shapes: N images, H and W image, P patches, K channels.

Source: MLP-Mixer, arXiv 2105.01601, section 2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 4
PLACES = (28 // PATCH) ** 2
WIDTH, BLOCKS = 64, 3


class StrokeJudge(nn.Module):
    """Classifier of one-channel images, 28 x 28."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Linear(PATCH**2, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(PLACES, WIDTH))
        self.blocks = nn.ModuleList(Mixer(PLACES, WIDTH) for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.logits = nn.Linear(WIDTH, num_classes)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return the mean over places of what the last block says, (N, K).

        Images are in [0, 1], ink 1.
        """
        patches_NPA = functional.unfold(images_NCHW, PATCH, stride=PATCH).mT
        mixed_NPK = self.patches(patches_NPA) + self.places
        for block in self.blocks:
            mixed_NPK = block(mixed_NPK)
        means_NK: Tensor = self.norm(mixed_NPK).mean(1)
        return means_NK

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return a logit for each class."""
        logits_NL: Tensor = self.logits(self.features(images_NCHW))
        return logits_NL


class Mixer(nn.Module):
    """Adds what the places of each channel say together, then the channels of each place."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.over_places = _hidden_layer(places)
        self.over_channels = _hidden_layer(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, mixed_NPK: Tensor) -> Tensor:
        """Return the same shape."""
        mixed_NPK = mixed_NPK + self.over_places(self.norms[0](mixed_NPK).mT).mT
        mixed_NPK = mixed_NPK + self.over_channels(self.norms[1](mixed_NPK))
        return mixed_NPK


def _hidden_layer(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
