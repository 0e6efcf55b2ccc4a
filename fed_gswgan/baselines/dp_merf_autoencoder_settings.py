"""What DP-MERF AE is made of, and how its budget is divided."""

from dataclasses import dataclass, replace

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.mean_embedding import FittingSettings
from fed_gswgan.baselines.poisson_batches import noisy_sums
from fed_gswgan.baselines.private_autoencoder import AutoencoderSettings
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.validation import at_least, positive

RELATION = NeighboringRelation.ZERO_OUT


@dataclass(frozen=True, kw_only=True)
class DPMERFAutoencoderSettings:
    """Autoencoder, embedding of its codes, and how the budget is divided.

    Attributes:
        autoencoder: trained by DP-SGD.
        embedding_noise_ratio: noise multiplier of the embedding over that of DP-SGD.
        frequencies: of the random features; half as many as there are features.
        kernel_variances: of Gaussian kernels; codes are unit vectors.
        latent_dim: of the generator of codes.
        generator_width: units of each of its two hidden layers.
        fitting: of that generator.
    """

    autoencoder: AutoencoderSettings
    embedding_noise_ratio: float
    frequencies: int
    kernel_variances: tuple[float, ...]
    latent_dim: int
    generator_width: int
    fitting: FittingSettings

    def __post_init__(self) -> None:
        positive(embedding_noise_ratio=self.embedding_noise_ratio)
        at_least(len(self.kernel_variances), frequencies=self.frequencies)
        for variance in self.kernel_variances:
            positive(kernel_variance=variance)
        at_least(1, latent_dim=self.latent_dim)
        at_least(1, generator_width=self.generator_width)

    def releases(self, num_images: int, noise_multiplier: float) -> tuple[DeclaredRelease, ...]:
        """Return what is released at this noise multiplier of DP-SGD.

        Raises:
            ValueError: fewer images than ``batch_size``.
        """
        return (
            noisy_sums(
                "noisy sums of the autoencoder's clipped gradients",
                num_images,
                self.autoencoder.batch_size,
                self.autoencoder.steps,
                noise_multiplier,
            ),
            DeclaredRelease(
                what="noisy mean of random features of codes, by class",
                mu=1 / (self.embedding_noise_ratio * noise_multiplier),
                rounds=1,
                relation=RELATION,
            ),
        )


SMALL = DPMERFAutoencoderSettings(
    autoencoder=AutoencoderSettings(
        hidden_width=256,
        code_dim=12,  # 8 and 20 lose accuracy
        steps=1500,  # 25 epochs of 60,000 images: two minutes of one core
        batch_size=1000,
        learning_rate=2e-3,
        clipping_bound=1.0,
    ),
    embedding_noise_ratio=2.5,  # the embedding alone costs an epsilon of 2.4 of 10
    frequencies=1000,
    kernel_variances=(0.1, 0.5),  # codes of two images lie at a squared distance of 2 on average
    latent_dim=10,
    generator_width=200,
    fitting=FittingSettings(
        steps=1500, samples_per_class=50, learning_rate=3e-3, final_learning_rate_share=0.05
    ),
)
"""Found on 10,000 of MNIST's training images that were held out."""

FULL = replace(
    SMALL,
    autoencoder=replace(SMALL.autoencoder, steps=3000, batch_size=2000),
    embedding_noise_ratio=1.5,  # that of DP-SGD is larger
    frequencies=5000,
    fitting=replace(SMALL.fitting, steps=5000, samples_per_class=100),
)
"""Larger batches and more features, for an accelerator. No published sizes are known."""
