"""An autoencoder that is trained by DP-SGD, and the unit vectors it takes for codes.

Shapes: N images, B batch, C channels, H and W image, D code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.clipped_steps import ClippedSteps, hook_warnings_ignored
from fed_gswgan.baselines.poisson_batches import poisson_batch
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, positive


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """Network, batches and clipping.

    Attributes:
        hidden_width: units of the one hidden layer of encoder and decoder each.
        code_dim: length of a code.
        steps: each is one release.
        batch_size: images in a Poisson batch on average.
        learning_rate: of Adam.
        clipping_bound: of an image's gradient with respect to all weights; an L2 norm.
    """

    hidden_width: int
    code_dim: int
    steps: int
    batch_size: int
    learning_rate: float
    clipping_bound: float

    def __post_init__(self) -> None:
        at_least(1, hidden_width=self.hidden_width)
        at_least(2, code_dim=self.code_dim)
        at_least(1, steps=self.steps)
        at_least(1, batch_size=self.batch_size)
        positive(learning_rate=self.learning_rate)
        positive(clipping_bound=self.clipping_bound)


class Autoencoder(nn.Module):
    """Image to a code on the unit sphere and back; no layer mixes the rows of a batch."""

    def __init__(self, image_shape: tuple[int, ...], hidden_width: int, code_dim: int) -> None:
        super().__init__()
        self._image_shape, pixels = image_shape, math.prod(image_shape)
        self.encoder = nn.Sequential(
            nn.Linear(pixels, hidden_width), nn.ReLU(), nn.Linear(hidden_width, code_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code_dim, hidden_width), nn.ReLU(), nn.Linear(hidden_width, pixels)
        )

    def codes(self, images_BCHW: Tensor) -> Tensor:
        """Return codes_BD of norm 1."""
        return functional.normalize(self.encoder(images_BCHW.flatten(1)))

    def decoded(self, codes_BD: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1]."""
        return torch.sigmoid(self.decoder(codes_BD)).view(-1, *self._image_shape)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits of each pixel (B, C H W)."""
        logits: Tensor = self.decoder(self.codes(images_BCHW))
        return logits


def train_private_autoencoder(
    images_NCHW: Tensor,
    settings: AutoencoderSettings,
    noise_multiplier: float,
    seeds: SeedStream,
    progress: Callable[[float], None],
) -> Autoencoder:
    """Train by DP-SGD on Poisson batches.

    Args:
        images_NCHW: float32 in [0, 1], at least ``batch_size`` of them.
        settings: all but the noise.
        noise_multiplier: noise on the sum, in units of the clipping bound.
        seeds: of weights, batches and noise.
        progress: told the share that is done, in [0, 1].
    """
    count, device = len(images_NCHW), images_NCHW.device
    with initial_weights_from(seeds.torch_seed("autoencoder")):
        network = Autoencoder(
            image_shape_of(images_NCHW), settings.hidden_width, settings.code_dim
        ).to(device)
    steps = ClippedSteps(
        network,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        clipping_bound=settings.clipping_bound,
        noise_multiplier=noise_multiplier,
        batch_size=settings.batch_size,
        noise_seed=seeds.torch_seed("autoencoder noise"),
    )
    draws = seeds.generator("poisson batches")
    with hook_warnings_ignored():
        for step in range(1, settings.steps + 1):
            chosen = poisson_batch(count, settings.batch_size / count, draws).to(device)
            steps.take(partial(reconstruction_losses, images_BCHW=images_NCHW[chosen]))
            progress(step / settings.steps)
    steps.remove_hooks()
    return network.eval().requires_grad_(False)


def reconstruction_losses(autoencoder: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return the cross-entropy of each image's pixels, summed, (B,)."""
    logits_BP, pixels_BP = autoencoder(images_BCHW), images_BCHW.flatten(1)
    losses_BP = functional.binary_cross_entropy_with_logits(logits_BP, pixels_BP, reduction="none")
    return losses_BP.sum(1)
