"""Conditional DP-SGD GAN: only the discriminator sees images, through clipped noisy gradients.

Shapes: N images, B batch, Z latent, C channels, H and W image.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.baselines.clipped_steps import hook_warnings_ignored
from fed_gswgan.baselines.conditional_generators import conditional_generator
from fed_gswgan.baselines.dpsgd_gan_settings import DPSGDGANSettings
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.private_discriminator import PrivateDiscriminator
from fed_gswgan.baselines.renyi_accounting import gaussian_rdp, renyi_epsilon
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.seeding import SeedStream


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
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; networks run on their device.
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
    discriminator = PrivateDiscriminator(
        images_NCHW, labels_N, num_classes, settings, noise_multiplier, seeds
    )
    config = GeneratorSettings(
        latent_dim=settings.latent_dim,
        latent_kind="normal",
        generator_learning_rate=settings.generator_learning_rate,
        ema_halflife_steps=settings.ema_halflife_steps,
        adam_beta1=settings.adam.adam_beta1,
        adam_beta2=settings.adam.adam_beta2,
    )
    network = conditional_generator(
        settings.generator,
        image_shape_of(images_NCHW),
        settings.latent_dim,
        num_classes,
        settings.generator_width,
        seeds.torch_seed("generator"),
    )
    trainer = GeneratorTrainer(OnDevice(network, images_NCHW.device), config)
    draws = seeds.generator("latents")

    def latents_and_labels(count: int) -> tuple[Tensor, Tensor]:
        latents_BZ = draw_latents(count, settings.latent_dim, "normal", draws)
        labels_B = draw_labels(count, num_classes, draws)
        return latents_BZ.to(images_NCHW.device), labels_B.to(images_NCHW.device)

    realism = _LogRealism(discriminator.network)
    with hook_warnings_ignored():
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
