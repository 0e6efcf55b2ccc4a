"""The transposed-convolution generator: the convolutional critic, mirrored.

Shape suffixes: ``B`` batch, ``Z`` latent, ``C`` channels, ``H`` ``W`` image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.models.pixel_norm import PixelNorm


class DCGANGenerator(nn.Module):
    """Dense to 4x4, then three transposed convolutions: 4 -> 7 -> 14 -> 28.

    The class enters as an embedding as long as the latent, joined to it, so that neither outweighs
    the other at the dense layer.

    Pixel norm stands where DCGAN has batch norm. A sample must be a function of its own latent and
    label alone: the gradient a client returns for one row is then the gradient of that row, and not
    also of the rows that happened to share its batch. It also leaves no running statistics, so
    ``train()`` and ``eval()`` are the same function.

    Source: layer plan after Radford et al., DCGAN (arXiv 1511.06434), section 3; pixel norm from
    Karras et al. (arXiv 1710.10196), section 4.2.
    """

    def __init__(self, latent_dim: int, num_classes: int, width: int = 64) -> None:
        """Build the layers, initialised from torch's global generator.

        Args:
            latent_dim: Numbers in a latent.
            num_classes: Labels are 0 to ``num_classes - 1``.
            width: Channels at 14x14; twice as many at 7x7, four times at 4x4.
        """
        super().__init__()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.class_embedding = nn.Embedding(num_classes, latent_dim)
        self.dense = nn.Linear(2 * latent_dim, 4 * width * 4 * 4)
        self.to_7x7 = nn.ConvTranspose2d(4 * width, 2 * width, 5, stride=2, padding=2)
        self.to_14x14 = nn.ConvTranspose2d(
            2 * width, width, 5, stride=2, padding=2, output_padding=1
        )
        # A kernel the stride divides reaches every pixel equally often: no checkerboard.
        # Source: Odena et al., Deconvolution and Checkerboard Artifacts, Distill 2016.
        self.to_28x28 = nn.ConvTranspose2d(width, 1, 6, stride=2, padding=2)
        self.pixel_norm = PixelNorm()

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Generate one sample per latent.

        Args:
            latents_BZ: ``(B, latent_dim)`` float32.
            labels_B: ``(B,)`` int64 in ``[0, num_classes)``.

        Returns:
            ``(B, 1, 28, 28)`` float32 in [0, 1].
        """
        joined = torch.cat((latents_BZ, self.class_embedding(labels_B)), dim=1)
        features_BCHW = self.dense(joined).unflatten(1, (-1, 4, 4))
        for layer in (self.to_7x7, self.to_14x14, self.to_28x28):
            features_BCHW = layer(functional.relu(self.pixel_norm(features_BCHW)))
        return torch.sigmoid(features_BCHW)
