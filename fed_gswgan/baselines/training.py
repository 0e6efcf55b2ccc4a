"""What the baselines share: networks, their device, and the result of a training.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.evaluation.samplers import Sampler
from fed_gswgan.models.generators import DCGANGenerator, SlimGenerator
from fed_gswgan.models.registry import GeneratorSettings, initial_weights_from
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents, sampler_of
from fed_gswgan.seeding import SeedStream


@dataclass(frozen=True, kw_only=True)
class TrainedBaseline:
    """A generator trained on private images that lie in one place.

    Attributes:
        sampler: draws samples of the classes asked for.
        releases: everything in which private images had a part; together they give epsilon.
        published_epsilon: what the method's own authors' accounting says of the same releases; None
            where that depends on the private images.
        published_accounting: that accounting in a few words, with its source.
    """

    sampler: Sampler
    releases: tuple[DeclaredRelease, ...]
    published_epsilon: float | None
    published_accounting: str


class OnDevice(nn.Module):
    """Moves what goes in to ``device`` and what comes out back; on the CPU it does nothing.

    Gradients pass through the moves, so a gradient penalty and a sample gradient work as before.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network.to(device)
        self._device = device

    def forward(self, inputs: Tensor, labels_B: Tensor) -> Tensor:
        """Return ``network(inputs, labels_B)`` on the device of ``inputs``."""
        output: Tensor = self.network(inputs.to(self._device), labels_B.to(self._device))
        return output.to(inputs.device)


def sampler_on_labels_device(generator: nn.Module, config: GeneratorSettings) -> Sampler:
    """Return a sampler of an ``OnDevice`` generator, whose samples lie where the labels do."""
    draw = sampler_of(generator, config)
    return lambda labels_B, seed: draw(labels_B, seed).to(labels_B.device)


def with_classes(rows_BP: Tensor, labels_B: Tensor, num_classes: int) -> Tensor:
    """Return each row with its one-hot label behind it, (B, P + ``num_classes``)."""
    return torch.cat([rows_BP, functional.one_hot(labels_B, num_classes).to(rows_BP.dtype)], dim=1)


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
        hidden = functional.relu(
            self.hidden(with_classes(images_BCHW.flatten(1), labels_B, self._num_classes))
        )
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
        hidden = functional.relu(self.hidden(with_classes(latents_BZ, labels_B, self._num_classes)))
        samples_BCHW: Tensor = torch.sigmoid(self.pixels(hidden)).view(-1, *self._image_shape)
        return samples_BCHW


GENERATORS = {"shallow": ShallowGenerator, "slim": SlimGenerator, "dcgan": DCGANGenerator}


def conditional_trainer(
    settings: Any,
    images_NCHW: Tensor,
    num_classes: int,
    seeds: SeedStream,
    ema_halflife_steps: float = 10.0,
) -> tuple[GeneratorTrainer, GeneratorSettings]:
    """Return the trainer of a seeded generator on the images' device, and its configuration.

    Args:
        settings: names a key of ``GENERATORS``, its width, its latents and its optimizer.
        images_NCHW: give a sample's shape and the device; no image is read.
        num_classes: of the generator.
        seeds: of its weights.
        ema_halflife_steps: of the average of its weights; 0: none.
    """
    with initial_weights_from(seeds.torch_seed("generator")):
        network = GENERATORS[settings.generator](
            image_shape_of(images_NCHW), settings.latent_dim, num_classes, settings.generator_width
        )
    config = GeneratorSettings(
        latent_dim=settings.latent_dim,
        latent_kind="normal",
        generator_learning_rate=settings.generator_learning_rate,
        ema_halflife_steps=ema_halflife_steps,
        adam_beta1=settings.adam.adam_beta1,
        adam_beta2=settings.adam.adam_beta2,
    )
    network = OnDevice(network, images_NCHW.device)
    return GeneratorTrainer(network, config), config


def draw_batch(
    count: int,
    latent_dim: int,
    num_classes: int,
    randomness: np.random.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return normal latents_BZ and uniform labels_B of so many samples."""
    latents_BZ = draw_latents(count, latent_dim, "normal", randomness)
    return latents_BZ.to(device), draw_labels(count, num_classes, randomness).to(device)
