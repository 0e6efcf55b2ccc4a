"""An autoencoder that is trained by DP-SGD, and the unit vectors it takes for codes.

Shapes: N images, B batch, C channels, H and W image, D code.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.models.build import initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, positive

SIDE = 28


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

    def __init__(self, hidden_width: int, code_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(SIDE * SIDE, hidden_width), nn.ReLU(), nn.Linear(hidden_width, code_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code_dim, hidden_width), nn.ReLU(), nn.Linear(hidden_width, SIDE * SIDE)
        )

    def codes(self, images_BCHW: Tensor) -> Tensor:
        """Return codes_BD of norm 1."""
        return functional.normalize(self.encoder(images_BCHW.flatten(1)))

    def decoded(self, codes_BD: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1]."""
        return torch.sigmoid(self.decoder(codes_BD)).view(-1, 1, SIDE, SIDE)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits of each pixel (B, H W)."""
        logits: Tensor = self.decoder(self.codes(images_BCHW))
        return logits


def poisson_batch(count: int, probability: float, randomness: np.random.Generator) -> Tensor:
    """Return indices, int64, of those of ``count`` records that their own coins select."""
    return torch.from_numpy(np.flatnonzero(randomness.random(count) < probability))


def train_private_autoencoder(
    images_NCHW: Tensor,
    settings: AutoencoderSettings,
    noise_multiplier: float,
    seeds: SeedStream,
    progress: Callable[[float], None],
) -> Autoencoder:
    """Train by DP-SGD: clipped gradients of a Poisson batch, summed, with noise on the sum.

    The loss of an image is the cross-entropy of its pixels, summed. The sum of gradients is divided
    by the batch size that is expected, as that of a batch is not shown. An image that is zeroed out
    moves the sum by the clipping bound at most.

    Args:
        images_NCHW: float32 in [0, 1], at least ``batch_size`` of them.
        settings: all but the noise.
        noise_multiplier: noise on the sum, in units of the clipping bound.
        seeds: of weights, batches and noise.
        progress: told the share that is done, in [0, 1].

    Source: DP-SGD, arXiv 1607.00133, algorithm 1; norms without the gradients of single images,
        arXiv 2009.03106.
    """
    count, device = len(images_NCHW), images_NCHW.device
    with initial_weights_from(seeds.torch_seed("autoencoder")):
        network = Autoencoder(settings.hidden_width, settings.code_dim).to(device)
    per_example = GradSampleModuleFastGradientClipping(
        network, loss_reduction="sum", max_grad_norm=settings.clipping_bound
    )
    noise = torch.Generator(device)
    noise.manual_seed(seeds.torch_seed("autoencoder noise"))
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        noise_multiplier=noise_multiplier,
        max_grad_norm=settings.clipping_bound,
        expected_batch_size=settings.batch_size,
        generator=noise,
    )
    draws = seeds.generator("poisson batches")
    with warnings.catch_warnings():
        # Per-example hooks need no gradient at the images, and torch wonders at that.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        for step in range(1, settings.steps + 1):
            chosen = poisson_batch(count, settings.batch_size / count, draws).to(device)
            optimizer.zero_grad(set_to_none=True)  # the noisy sum of the step before, too
            leave_clipped_gradients(per_example, images_NCHW[chosen])
            optimizer.step()
            progress(step / settings.steps)
    per_example.remove_hooks()
    return network.eval().requires_grad_(False)


def leave_clipped_gradients(
    per_example: GradSampleModuleFastGradientClipping, images_BCHW: Tensor
) -> None:
    """Leave the sum of the images' clipped gradients in ``grad`` of every weight.

    Args:
        per_example: the autoencoder, which knows the clipping bound.
        images_BCHW: a batch; of none the sum is zero.
    """
    per_example.enable_hooks()
    logits_BP, pixels_BP = per_example(images_BCHW), images_BCHW.flatten(1)
    losses_B = functional.binary_cross_entropy_with_logits(
        logits_BP, pixels_BP, reduction="none"
    ).sum(1)
    # Once for the norms alone, and again with each row shrunk to the bound.
    losses_B.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    shrinking_B = per_example.get_clipping_coef()
    per_example.zero_grad(set_to_none=True)
    per_example.disable_hooks()
    (shrinking_B * losses_B).sum().backward()  # type: ignore[no-untyped-call]
