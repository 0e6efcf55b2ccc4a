"""A generator of the codes of an autoencoder, which shows them as images.

Shapes: B batch, Z latent, D code, C channels, H and W image, L classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.private_autoencoder import Autoencoder


class CodeGenerator(nn.Module):
    """Latent and one-hot label to a code on the unit sphere, which a decoder shows as an image.

    Batch norm mixes the rows of a batch while it is trained; it sees latents and labels alone.
    """

    def __init__(self, latent_dim: int, num_classes: int, width: int, code_dim: int) -> None:
        super().__init__()
        self._num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + num_classes, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, code_dim),
        )

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return codes_BD of norm 1."""
        classes_BL = functional.one_hot(labels_B, self._num_classes).to(latents_BZ.dtype)
        return functional.normalize(self.layers(torch.cat([latents_BZ, classes_BL], dim=1)))


class DecodedGenerator(nn.Module):
    """Latent and label to the image that an autoencoder decodes from the code."""

    def __init__(self, generator: CodeGenerator, autoencoder: Autoencoder) -> None:
        super().__init__()
        self._generator, self._autoencoder = generator, autoencoder

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1]."""
        return self._autoencoder.decoded(self._generator(latents_BZ, labels_B))
