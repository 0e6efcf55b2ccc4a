"""The discriminator of a DP-SGD GAN, the one network of it that sees images.

Shapes: N images, B batch, C channels, H and W image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.clipped_steps import ClippedSteps
from fed_gswgan.baselines.dpsgd_gan_settings import DISCRIMINATORS, DPSGDGANSettings
from fed_gswgan.baselines.poisson_batches import poisson_batch
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.seeding import SeedStream


class PrivateDiscriminator:
    """Learns from images by DP-SGD."""

    def __init__(
        self,
        images_NCHW: Tensor,
        labels_N: Tensor,
        num_classes: int,
        settings: DPSGDGANSettings,
        noise_multiplier: float,
        seeds: SeedStream,
    ) -> None:
        self._images_NCHW, self._labels_N = images_NCHW, labels_N
        self._batch_size = settings.batch_size
        self._draws = seeds.generator("poisson batches")
        with initial_weights_from(seeds.torch_seed("discriminator")):
            network = DISCRIMINATORS[settings.discriminator](
                image_shape_of(images_NCHW), num_classes, settings.discriminator_width
            )
        self.network = network.to(images_NCHW.device)
        self._steps = ClippedSteps(
            self.network,
            _optimizer(self.network, settings),
            clipping_bound=settings.clipping_bound,
            noise_multiplier=noise_multiplier,
            batch_size=settings.batch_size,
            noise_seed=seeds.torch_seed("noise"),
        )

    def poisson_batch(self) -> Tensor:
        """Return the indices of a batch, int64: each image is in it by its own coin."""
        count = len(self._labels_N)
        chosen = poisson_batch(count, self._batch_size / count, self._draws)
        return chosen.to(self._labels_N.device)

    def step(self, samples_BCHW: Tensor, labels_B: Tensor) -> None:
        """Take one step on a Poisson batch of images against samples.

        Rows of images and of samples are clipped alike, each by itself, as in DP-CGAN; the samples'
        need no noise, and would outweigh the images' if they were not clipped.
        """
        chosen = self.poisson_batch()
        images_BCHW = torch.cat([self._images_NCHW[chosen], samples_BCHW])
        labels_B = torch.cat([self._labels_N[chosen], labels_B])
        is_real_B = torch.arange(len(labels_B), device=labels_B.device) < len(chosen)

        def losses_of(network: nn.Module) -> Tensor:
            logits_B = network(images_BCHW, labels_B)
            return functional.softplus(torch.where(is_real_B, -logits_B, logits_B))

        self._steps.take(losses_of)


def _optimizer(network: nn.Module, settings: DPSGDGANSettings) -> torch.optim.Optimizer:
    learning_rate = settings.discriminator_learning_rate
    if settings.discriminator_optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=learning_rate)
    betas = (settings.adam.adam_beta1, settings.adam.adam_beta2)
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)
