"""Draws samples of the classes asked for from a trained generator."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import draw_latents
from fed_gswgan.training_config import GeneratorConfig

Sampler = Callable[[Tensor, int], Tensor]


def sampler_of(generator: nn.Module, config: GeneratorConfig) -> Sampler:
    """Return a function (labels_B int64, seed) -> samples_BCHW float32 in [0, 1].

    A moving average of generators, and a field that predicts a mean, are unsure where a stroke
    ends, and so paint it grey; ink on paper hardly is. ``sample_contrast`` multiplies the logit of
    each pixel. Clients are asked about samples without it, and it costs no privacy.
    """

    @torch.no_grad()
    def sampler(labels_B: Tensor, seed: int) -> Tensor:
        randomness = SeedStream(seed).generator("sampling")
        latents_BZ = draw_latents(len(labels_B), config.latent_dim, config.latent_kind, randomness)
        generator.eval()
        samples_BCHW: Tensor = generator(latents_BZ, labels_B)
        if config.sample_contrast != 1:
            samples_BCHW = torch.sigmoid(config.sample_contrast * torch.logit(samples_BCHW))
        return samples_BCHW

    return sampler
