"""Generators of seeded weights, and latents for them."""

import torch
from torch import Tensor, nn

LATENT_DIM = 6


def seeded(network: type[nn.Module], num_classes: int = 10, width: int = 4) -> nn.Module:
    """Return a generator of latents of ``LATENT_DIM``, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network(LATENT_DIM, num_classes, width)


def draw_latents(rows: int) -> Tensor:
    """Return latents_BZ, the same each time."""
    return torch.randn(rows, LATENT_DIM, generator=torch.Generator().manual_seed(1))
