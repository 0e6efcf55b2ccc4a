"""A conditional generator small enough to train on two CPU cores.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import torch
from torch import Tensor, nn

from fed_gswgan.models.pixel_norm import PixelNorm


class SlimGenerator(nn.Module):
    """7x7 features, upsampled twice to 28x28, pixel norm after every layer.

    Pixel norm and not batch norm: a sample must depend on its own latent and label alone, or the
    gradient with respect to one sample would not be that sample's. The class embedding is as long
    as the latent and half as strong: a larger one drowns the latent, and every class collapses to
    one shape.
    """

    def __init__(self, latent_dim: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.class_embedding = nn.Embedding(num_classes, latent_dim)
        nn.init.normal_(self.class_embedding.weight, std=0.5)
        self.to_features = nn.Linear(2 * latent_dim, 2 * width * 7 * 7)
        self.to_14 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.to_28 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.to_image = nn.Conv2d(width // 2, 1, 3, padding=1)
        self.norm = PixelNorm()
        self.activation = nn.LeakyReLU(0.2)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW, float32 in [0, 1], ink 1, of the classes asked for."""
        condition = torch.cat([latents_BZ, self.class_embedding(labels_B)], dim=1)
        features = self.to_features(condition).unflatten(1, (-1, 7, 7))
        features = self.norm(self.activation(features))
        features = self.norm(self.activation(self.to_14(self.upsample(features))))
        features = self.norm(self.activation(self.to_28(self.upsample(features))))
        return torch.sigmoid(self.to_image(features))
