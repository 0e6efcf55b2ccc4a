"""What a DP-SGD GAN is made of: as first published, as revisited, and smaller."""

from dataclasses import dataclass, replace

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.conditional_generators import GENERATORS
from fed_gswgan.baselines.poisson_batches import noisy_sums
from fed_gswgan.baselines.shallow_networks import ShallowDiscriminator
from fed_gswgan.models.critics import ConvCritic, MLPCritic
from fed_gswgan.models.registry import AdamSettings
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
