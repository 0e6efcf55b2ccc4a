"""What DP-MERF is made of: as published, and smaller."""

from dataclasses import dataclass, replace

from fed_gswgan.baselines.mean_embedding import FittingSettings
from fed_gswgan.validation import at_least, positive


@dataclass(frozen=True, kw_only=True)
class DPMERFSettings:
    """Embedding, generator, and how it is fitted.

    Attributes:
        frequencies: of the random features; half as many as there are features.
        kernel_variances: of Gaussian kernels, in squared units of pixels.
        latent_dim: of the generator, as are the next two.
        hidden_width: units.
        channels: of its 7x7 features, even.
        fitting: to the embedding.
    """

    frequencies: int
    kernel_variances: tuple[float, ...]
    latent_dim: int
    hidden_width: int
    channels: int
    fitting: FittingSettings

    def __post_init__(self) -> None:
        at_least(len(self.kernel_variances), frequencies=self.frequencies)
        for variance in self.kernel_variances:
            positive(kernel_variance=variance)
        at_least(1, latent_dim=self.latent_dim)
        at_least(2, hidden_width=self.hidden_width)
        at_least(2, channels=self.channels)
        if self.channels % 2:
            raise ValueError(f"channels={self.channels} must be even: a layer halves them")


FULL = DPMERFSettings(
    frequencies=500,
    kernel_variances=(105.0,),
    latent_dim=5,
    hidden_width=200,
    channels=16,
    fitting=FittingSettings(
        steps=3000,  # five epochs in batches of 100
        samples_per_class=10,
        learning_rate=0.01,
        final_learning_rate_share=0.9**5,
    ),
)
"""The published features, kernel, layers, batches and learning rate."""

SMALL = replace(
    FULL,
    # A kernel a third as wide tells strokes apart; alone, it cannot tell wrong images from worse.
    kernel_variances=(105.0, 30.0),
    frequencies=1000,  # so each kernel has as many as the published one
    hidden_width=400,
    fitting=FittingSettings(
        steps=2000,  # three minutes of one core
        samples_per_class=50,
        learning_rate=0.01,
        final_learning_rate_share=0.05,
    ),
)
"""Found on 10,000 of MNIST's training images that were held out."""
