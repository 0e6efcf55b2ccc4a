"""Conditional DP-SGD GAN: only the discriminator sees images, through clipped noisy gradients.

Shapes: N images, B batch, Z latent, C channels, H and W image.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from opacus.accountants.analysis import rdp
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.conditional_generators import GENERATORS, conditional_generator
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.shallow_networks import ShallowDiscriminator
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.config import AdamConfig, GeneratorConfig
from fed_gswgan.models.build import initial_weights_from
from fed_gswgan.models.conv_critic import ConvCritic
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.privacy.declared_releases import DeclaredRelease
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.release_calibration import noise_for
from fed_gswgan.privacy.trust import SamplingMethod
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.training.sample_gradient import sample_gradient
from fed_gswgan.validation import at_least, one_of, positive

DISCRIMINATORS = {"shallow": ShallowDiscriminator, "mlp": MLPCritic, "conv": ConvCritic}
OPTIMIZERS = ("sgd", "adam")
ADAM = AdamConfig(adam_beta2=0.999)
# Order near 1 are for large epsilons; whole orders up to 64 are what such analyses list.
ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(11, 65))


@dataclass(frozen=True, kw_only=True)
class DPSGDGANSettings:
    """Networks, batches and clipping.

    Attributes:
        discriminator_steps: all that are taken; each is one release.
        discriminator_steps_per_generator_step: between two steps of the generator.
        batch_size: images in a Poisson batch on average, and samples beside them.
        generator_batch_size: samples in a step of the generator.
        clipping_bound: of an image's gradient with respect to all weights; an L2 norm.
        noise_multiplier_factor: what the published accounting multiplies the noise multiplier by.
        published_accounting: in words.
    """

    discriminator: str
    discriminator_width: int
    discriminator_optimizer: str
    discriminator_learning_rate: float
    generator: str
    generator_width: int
    generator_learning_rate: float
    latent_dim: int
    discriminator_steps: int
    discriminator_steps_per_generator_step: int
    batch_size: int
    generator_batch_size: int
    clipping_bound: float
    noise_multiplier_factor: float
    published_accounting: str
    ema_halflife_steps: float = 0.0  # of the generator; 0: none
    adam: AdamConfig = ADAM

    def __post_init__(self) -> None:
        one_of(DISCRIMINATORS, discriminator=self.discriminator)
        one_of(GENERATORS, generator=self.generator)
        one_of(OPTIMIZERS, discriminator_optimizer=self.discriminator_optimizer)
        for name in ("discriminator_width", "generator_width", "latent_dim", "batch_size",
                     "generator_batch_size", "discriminator_steps",
                     "discriminator_steps_per_generator_step"):  # fmt: skip
            at_least(1, **{name: getattr(self, name)})
        for name in ("discriminator_learning_rate", "generator_learning_rate", "clipping_bound",
                     "noise_multiplier_factor"):  # fmt: skip
            positive(**{name: getattr(self, name)})

    def releases(self, num_images: int, noise_multiplier: float) -> tuple[DeclaredRelease, ...]:
        """Return what all steps release at this noise, in units of the clipping bound.

        An image that is zeroed out moves a step's sum of clipped gradients by the bound at most.
        The number of images is taken as known; that of a batch is not shown.

        Raises:
            ValueError: fewer images than ``batch_size``.
        """
        if num_images < self.batch_size:
            raise ValueError(
                f"batch-size={self.batch_size} must be at most the {num_images} training images"
            )
        return (
            DeclaredRelease(
                what="noisy sums of the discriminator's clipped gradients",
                mu=1 / noise_multiplier,
                rounds=self.discriminator_steps,
                relation=NeighboringRelation.ZERO_OUT,
                sampling=SamplingMethod.POISSON,
                sampling_probability=self.batch_size / num_images,
            ),
        )


_PAPER_ERA = DPSGDGANSettings(
    discriminator="shallow",
    discriminator_width=128,
    discriminator_optimizer="sgd",
    discriminator_learning_rate=0.1,
    generator="shallow",
    generator_width=128,
    generator_learning_rate=1e-3,
    latent_dim=100,
    discriminator_steps=20_000,
    discriminator_steps_per_generator_step=1,
    batch_size=600,
    generator_batch_size=600,
    clipping_bound=1.1,
    noise_multiplier_factor=1.1,
    published_accounting=(
        "Rényi accounting that takes noise multiplier x clipping bound for the noise multiplier "
        "(DP-CGAN, arXiv 2001.09700, its code)"
    ),
)
_REVISITED = DPSGDGANSettings(
    discriminator="conv",
    discriminator_width=64,
    discriminator_optimizer="adam",
    discriminator_learning_rate=2e-4,
    generator="dcgan",
    generator_width=64,
    generator_learning_rate=2e-4,
    latent_dim=128,
    discriminator_steps=174_000,
    discriminator_steps_per_generator_step=50,
    batch_size=512,
    generator_batch_size=512,
    clipping_bound=1.0,
    noise_multiplier_factor=1.0,
    published_accounting="Rényi accounting of Poisson batches (arXiv 2302.02936)",
)

FULL_PAPER_ERA = _PAPER_ERA
"""DP-CGAN's networks, batch, clipping and first learning rate, which stays as it is."""

SMALL_PAPER_ERA = replace(_PAPER_ERA, discriminator_steps=4000, ema_halflife_steps=20.0)
"""Two minutes on one core; all but the number of steps and the average is as in the full size."""

FULL_REVISITED = _REVISITED
"""The published batch, clipping, steps and optimizer, with 50 steps of the discriminator for one.

The schedule that adapts this number is not offered; networks are this project's, none of which
mixes the rows of a batch.
"""

SMALL_REVISITED = replace(
    _REVISITED,
    discriminator="mlp",
    discriminator_width=256,
    discriminator_learning_rate=5e-4,
    generator="shallow",
    generator_width=256,
    generator_learning_rate=1e-3,
    latent_dim=20,
    discriminator_steps=1500,
    discriminator_steps_per_generator_step=3,
    batch_size=256,
    generator_batch_size=128,
    ema_halflife_steps=20.0,
)
"""A minute on one core.

Dense layers, whose per-example norms cost next to nothing; a step with convolutions of 8 or 16
channels took 7 or 23 times as long.
Few steps of the discriminator for one of the generator, or the generator takes too few in all; and
few steps in all, since more of them need more noise.
"""


class _Discriminator:
    """The network that learns from images, by DP-SGD."""

    def __init__(
        self,
        images_NCHW: Tensor,
        labels_N: Tensor,
        num_classes: int,
        settings: DPSGDGANSettings,
        noise_multiplier: float,
        seeds: SeedStream,
    ) -> None:
        self._images_NCHW, self._labels_N, self._settings = images_NCHW, labels_N, settings
        self._draws = seeds.generator("poisson batches")
        with initial_weights_from(seeds.torch_seed("discriminator")):
            network = DISCRIMINATORS[settings.discriminator](
                num_classes, settings.discriminator_width
            )
        self.network = network.to(images_NCHW.device)
        self._per_example = GradSampleModuleFastGradientClipping(
            self.network, loss_reduction="sum", max_grad_norm=settings.clipping_bound
        )
        self._per_example.disable_hooks()
        noise = torch.Generator(images_NCHW.device)
        noise.manual_seed(seeds.torch_seed("noise"))
        self._optimizer = DPOptimizerFastGradientClipping(
            _optimizer(self.network, settings),
            noise_multiplier=noise_multiplier,
            max_grad_norm=settings.clipping_bound,
            expected_batch_size=settings.batch_size,
            generator=noise,
        )

    def poisson_batch(self) -> Tensor:
        """Return the indices of a batch, int64: each image is in it by its own coin."""
        count = len(self._labels_N)
        selected = self._draws.random(count) < self._settings.batch_size / count
        return torch.from_numpy(np.flatnonzero(selected)).to(self._labels_N.device)

    def step(self, samples_BCHW: Tensor, labels_B: Tensor) -> None:
        """Take one step on a Poisson batch of images against samples.

        Rows of images and of samples are clipped alike, each by itself, as in DP-CGAN; the samples'
        need no noise, and would outweigh the images' if they were not clipped.
        """
        chosen = self.poisson_batch()
        images_BCHW = torch.cat([self._images_NCHW[chosen], samples_BCHW])
        labels_B = torch.cat([self._labels_N[chosen], labels_B])
        is_real_B = torch.arange(len(labels_B), device=labels_B.device) < len(chosen)
        self._per_example.enable_hooks()
        logits_B = self._per_example(images_BCHW, labels_B)
        losses_B = functional.softplus(torch.where(is_real_B, -logits_B, logits_B))
        # Once for the norms alone, and again with each row shrunk to the bound.
        losses_B.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        shrinking_B = self._per_example.get_clipping_coef()
        self._optimizer.zero_grad(set_to_none=True)
        self._per_example.disable_hooks()
        (shrinking_B * losses_B).sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def train_dpsgd_gan(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: DPSGDGANSettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Train a discriminator by DP-SGD and, against it, a generator that touches no image.

    The loss is the non-saturating one. Labels are part of an image's record; those of samples are
    drawn uniformly.

    Args:
        images_NCHW: float32 (N, 1, 28, 28) in [0, 1], ink 1; networks run on their device.
        labels_N: int64 (N,) in [0, ``num_classes``).
        num_classes: of the conditional networks.
        settings: all but the noise, which is calibrated.
        epsilon: at most, under zero-out of a record, N being known.
        delta: in (0, 1).
        seed: of everything random. The noise too: who knows the seed can subtract it.
        progress: told the share that is done, in [0, 1].

    Raises:
        ValueError: fewer images than ``batch_size``.

    Source: DP-SGD, arXiv 1607.00133; DP-CGAN, arXiv 2001.09700; Private GANs, Revisited,
        arXiv 2302.02936.
    """
    seeds = SeedStream(seed)
    releases_at = partial(settings.releases, len(labels_N))
    noise_multiplier = noise_for(releases_at, epsilon, delta)
    discriminator = _Discriminator(
        images_NCHW, labels_N, num_classes, settings, noise_multiplier, seeds
    )
    config = GeneratorConfig(
        latent_dim=settings.latent_dim,
        latent_kind="normal",
        generator_learning_rate=settings.generator_learning_rate,
        ema_halflife_steps=settings.ema_halflife_steps,
    )
    network = conditional_generator(
        settings.generator,
        settings.latent_dim,
        num_classes,
        settings.generator_width,
        seeds.torch_seed("generator"),
    )
    trainer = GeneratorTrainer(OnDevice(network, images_NCHW.device), config, settings.adam)
    draws = seeds.generator("latents")

    def latents_and_labels(count: int) -> tuple[Tensor, Tensor]:
        latents_BZ = draw_latents(count, settings.latent_dim, "normal", draws)
        labels_B = draw_labels(count, num_classes, draws)
        return latents_BZ.to(images_NCHW.device), labels_B.to(images_NCHW.device)

    realism = _LogRealism(discriminator.network)
    with warnings.catch_warnings():
        # Per-example hooks need no gradient at the images, and torch wonders at that.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        for step in range(1, settings.discriminator_steps + 1):
            latents_BZ, labels_B = latents_and_labels(settings.batch_size)
            discriminator.step(trainer.samples(latents_BZ, labels_B), labels_B)
            if step % settings.discriminator_steps_per_generator_step == 0:
                latents_BZ, labels_B = latents_and_labels(settings.generator_batch_size)
                samples_BCHW = trainer.samples(latents_BZ, labels_B)
                gradient_BCHW = sample_gradient(realism, samples_BCHW, labels_B)
                trainer.step(latents_BZ, labels_B, gradient_BCHW)
            progress(step / settings.discriminator_steps)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, config),
        releases=releases_at(noise_multiplier),
        published_epsilon=_renyi_epsilon(
            noise_multiplier * settings.noise_multiplier_factor,
            settings.batch_size / len(labels_N),
            settings.discriminator_steps,
            delta,
        ),
        published_accounting=settings.published_accounting,
    )


class _LogRealism(nn.Module):
    """log D(samples): what the generator raises, and as a ``critic`` to ``sample_gradient``.

    Source: the non-saturating loss of GANs, arXiv 1406.2661, section 3.
    """

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self._discriminator = discriminator

    def forward(self, samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the log probability that each sample is an image, (B,)."""
        return functional.logsigmoid(self._discriminator(samples_BCHW, labels_B))


def _optimizer(network: nn.Module, settings: DPSGDGANSettings) -> torch.optim.Optimizer:
    learning_rate = settings.discriminator_learning_rate
    if settings.discriminator_optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=learning_rate)
    betas = (settings.adam.adam_beta1, settings.adam.adam_beta2)
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)


def _renyi_epsilon(
    noise_multiplier: float, sampling_probability: float, steps: int, delta: float
) -> float:
    """Return the epsilon of the moments accountant, by Opacus."""
    moments = rdp.compute_rdp(
        q=sampling_probability, noise_multiplier=noise_multiplier, steps=steps, orders=ORDERS
    )
    epsilon, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=moments, delta=delta)
    return float(epsilon)
