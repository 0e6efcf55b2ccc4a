"""DP-SGD GAN: a discriminator trained by DP-SGD, and a generator that sees no image.

Shapes: N images, B batch, Z latent, C channels, H and W image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.dp_sgd import (
    ClippedSteps,
    gaussian_rdp,
    hook_warnings_ignored,
    noisy_sums,
    poisson_batch,
    renyi_epsilon,
)
from fed_gswgan.baselines.training import (
    GENERATORS,
    ShallowDiscriminator,
    TrainedBaseline,
    conditional_trainer,
    draw_batch,
    sampler_on_labels_device,
)
from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.critics import ConvCritic, MLPCritic
from fed_gswgan.models.registry import AdamSettings, initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, one_of, positive

DISCRIMINATORS = {"shallow": ShallowDiscriminator, "mlp": MLPCritic, "conv": ConvCritic}
OPTIMIZERS = ("sgd", "adam")
ADAM = AdamSettings(adam_beta2=0.999)


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
    adam: AdamSettings = ADAM

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

        Raises:
            ValueError: fewer images than ``batch_size``.
        """
        return (
            noisy_sums(
                "noisy sums of the discriminator's clipped gradients",
                num_images,
                self.batch_size,
                self.discriminator_steps,
                noise_multiplier,
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

    def step(self, samples_BCHW: Tensor, labels_B: Tensor) -> None:
        """Take one step on a Poisson batch of images against samples.

        Rows of images and of samples are clipped alike, each by itself, as in DP-CGAN; the samples'
        need no noise, and would outweigh the images' if they were not clipped.
        """
        count = len(self._labels_N)
        chosen = poisson_batch(count, self._batch_size / count, self._draws)
        chosen = chosen.to(self._labels_N.device)
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


def train(
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

    Arguments are those of ``Method.train``; epsilon holds under zero-out of a record, with N
    known.

    Raises:
        ValueError: fewer images than ``batch_size``.

    Source: DP-SGD, arXiv 1607.00133; DP-CGAN, arXiv 2001.09700; Private GANs, Revisited,
        arXiv 2302.02936.
    """
    seeds = SeedStream(seed)
    releases_at = partial(settings.releases, len(labels_N))
    noise_multiplier = noise_for(releases_at, epsilon, delta)
    discriminator = PrivateDiscriminator(
        images_NCHW, labels_N, num_classes, settings, noise_multiplier, seeds
    )
    trainer, config = conditional_trainer(
        settings, images_NCHW, num_classes, seeds, settings.ema_halflife_steps
    )
    drawn = (settings.latent_dim, num_classes, seeds.generator("latents"), images_NCHW.device)
    realism = _LogRealism(discriminator.network)
    with hook_warnings_ignored():
        for step in range(1, settings.discriminator_steps + 1):
            latents_BZ, labels_B = draw_batch(settings.batch_size, *drawn)
            discriminator.step(trainer.samples(latents_BZ, labels_B), labels_B)
            if step % settings.discriminator_steps_per_generator_step == 0:
                latents_BZ, labels_B = draw_batch(settings.generator_batch_size, *drawn)
                samples_BCHW = trainer.samples(latents_BZ, labels_B)
                gradient_BCHW = sample_gradient(realism, samples_BCHW, labels_B)
                trainer.step(latents_BZ, labels_B, gradient_BCHW)
            progress(step / settings.discriminator_steps)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, config),
        releases=releases_at(noise_multiplier),
        published_epsilon=renyi_epsilon(
            gaussian_rdp(
                noise_multiplier * settings.noise_multiplier_factor,
                settings.batch_size / len(labels_N),
                settings.discriminator_steps,
            ),
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
