"""A generator and a discriminator of one hidden layer, as early private GANs had them.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class ShallowDiscriminator(nn.Module):
    """Image and one-hot label to one hidden layer to a logit, higher for what looks real.

    Source: DP-CGAN, arXiv 2001.09700: one hidden layer of 128.
    """

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self._num_classes = num_classes
        self.hidden = nn.Linear(math.prod(image_shape) + num_classes, width)
        self.logit = nn.Linear(width, 1)

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return logits_B of images in [0, 1]."""
        classes = functional.one_hot(labels_B, self._num_classes).to(images_BCHW.dtype)
        hidden = functional.relu(self.hidden(torch.cat([images_BCHW.flatten(1), classes], dim=1)))
        logits_B: Tensor = self.logit(hidden).squeeze(1)
        return logits_B


class ShallowGenerator(nn.Module):
    """Latent and one-hot label to one hidden layer to the pixels.

    Source: DP-CGAN, arXiv 2001.09700: one hidden layer of 128.
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_dim: int, num_classes: int, width: int = 128
    ) -> None:
        super().__init__()
        self._image_shape = image_shape
        self._num_classes = num_classes
        self.hidden = nn.Linear(latent_dim + num_classes, width)
        self.pixels = nn.Linear(width, math.prod(image_shape))

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1] of the classes asked for."""
        classes = functional.one_hot(labels_B, self._num_classes).to(latents_BZ.dtype)
        hidden = functional.relu(self.hidden(torch.cat([latents_BZ, classes], dim=1)))
        samples_BCHW: Tensor = torch.sigmoid(self.pixels(hidden)).view(-1, *self._image_shape)
        return samples_BCHW
