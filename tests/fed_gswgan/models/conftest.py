"""Networks of seeded weights, and inputs for them."""

import torch
from torch import Tensor, nn

from fed_gswgan.data.characters import IMAGE_SHAPE

LATENT_DIM = 6


def seeded(network: type[nn.Module], *arguments: object) -> nn.Module:
    """Return ``network(*arguments)``, with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network(*arguments)


def draw_latents(rows: int) -> Tensor:
    """Return latents_BZ, the same each time."""
    return torch.randn(rows, LATENT_DIM, generator=torch.Generator().manual_seed(1))


def draw_images(rows: int, image_shape: tuple[int, ...] = IMAGE_SHAPE) -> Tensor:
    """Return images_BCHW, the same each time."""
    return torch.rand(rows, *image_shape, generator=torch.Generator().manual_seed(1))
