"""Pixel norm: scale control that looks at one pixel of one sample and at nothing else."""

import torch
from torch import Tensor, nn

EPSILON = 1e-8  # Source: arXiv 1710.10196, section 4.2


class PixelNorm(nn.Module):
    """Scale the feature vector of every pixel to unit mean square over the channels.

    No parameters, no running statistics, and no mixing of rows, unlike batch norm.

    Source: Karras et al., Progressive Growing of GANs (arXiv 1710.10196), section 4.2.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise over dimension 1.

        Args:
            features: ``(B, P)`` or ``(B, C, H, W)``, any finite range. A vector that is all zero
                stays zero.

        Returns:
            The same shape; at each pixel the mean square over channels is 1.
        """
        return features * torch.rsqrt(features.square().mean(dim=1, keepdim=True) + EPSILON)
