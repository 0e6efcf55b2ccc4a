"""A generator of a few layers that upsamples by moving channels to pixels.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.models.generators import quarter_of

BACKGROUND_LOGIT = -2.0  # a pixel's at first: images are mostly background


class SubpixelGenerator(nn.Module):
    """Latent and one-hot label to a hidden layer, to a quarter of the size, doubled twice.

    Height and width of an image must be divisible by 4.

    Batch norm mixes the rows of a batch while it is trained: only for a generator that sees no
    image, and no gradient that was computed from a single one.

    Source: sub-pixel convolution, arXiv 1609.05158; the sizes of dense layers and features are
        those of DP-MERF (arXiv 2002.11603), which interpolates instead, at four times the cost on
        a CPU.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        num_classes: int,
        hidden_width: int,
        channels: int,
    ) -> None:
        super().__init__()
        self._num_classes = num_classes
        quarter = quarter_of(image_shape)
        features = channels * math.prod(quarter)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + num_classes, hidden_width),
            nn.BatchNorm1d(hidden_width),
            nn.ReLU(),
            nn.Linear(hidden_width, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Unflatten(1, (channels, *quarter)),
            nn.Conv2d(channels, 4 * (channels // 2), 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
        )
        self.to_image = nn.Conv2d(channels // 2, 4 * image_shape[0], 3, padding=1)
        nn.init.constant_(self.to_image.bias, BACKGROUND_LOGIT)  # type: ignore[arg-type]

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW, float32 in [0, 1], ink 1, of the classes asked for."""
        classes_BL = functional.one_hot(labels_B, self._num_classes).to(latents_BZ.dtype)
        features = self.layers(torch.cat([latents_BZ, classes_BL], dim=1))
        return torch.sigmoid(functional.pixel_shuffle(self.to_image(features), 2))
