"""DP-MERF AE: codes of a private autoencoder, a noisy mean embedding of them, and a generator.

Shapes: N images, B batch, Z latent, D code, C channels, H and W image, L classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from opacus.accountants.analysis import rdp
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.mean_embedding import (
    FittingSettings,
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.private_autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    train_private_autoencoder,
)
from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.config import GeneratorConfig
from fed_gswgan.models.build import initial_weights_from
from fed_gswgan.privacy.declared_releases import DeclaredRelease
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.privacy.release_calibration import noise_for
from fed_gswgan.privacy.trust import SamplingMethod
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, positive

RELATION = NeighboringRelation.ZERO_OUT
# Of Rényi divergences; orders near 1 are for large epsilons.
ORDERS = [1 + tenth / 10 for tenth in range(1, 100)] + list(range(11, 65))
PUBLISHED = (
    "Rényi accounting of Poisson batches and of one Gaussian together (DP-MERF, arXiv 2002.11603)"
)
TRAINING_SHARE = 0.8  # of the work, for the progress that is told


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

        The number of images is taken as known; that of a batch is not shown.

        Raises:
            ValueError: fewer images than ``batch_size``.
        """
        batch_size = self.autoencoder.batch_size
        if num_images < batch_size:
            raise ValueError(
                f"batch-size={batch_size} must be at most the {num_images} training images"
            )
        return (
            DeclaredRelease(
                what="noisy sums of the autoencoder's clipped gradients",
                mu=1 / noise_multiplier,
                rounds=self.autoencoder.steps,
                relation=RELATION,
                sampling=SamplingMethod.POISSON,
                sampling_probability=batch_size / num_images,
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


class CodeGenerator(nn.Module):
    """Latent and one-hot label to a code on the unit sphere, which a decoder shows as an image.

    Batch norm mixes the rows of a batch while it is trained; it sees latents and labels alone.
    """

    def __init__(self, latent_dim: int, num_classes: int, width: int, code_dim: int) -> None:
        super().__init__()
        self._num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + num_classes, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, code_dim),
        )

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return codes_BD of norm 1."""
        classes_BL = functional.one_hot(labels_B, self._num_classes).to(latents_BZ.dtype)
        return functional.normalize(self.layers(torch.cat([latents_BZ, classes_BL], dim=1)))


class _Decoded(nn.Module):
    def __init__(self, generator: CodeGenerator, autoencoder: Autoencoder) -> None:
        super().__init__()
        self._generator, self._autoencoder = generator, autoencoder

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        return self._autoencoder.decoded(self._generator(latents_BZ, labels_B))


def train_dp_merf_autoencoder(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: DPMERFAutoencoderSettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Train an autoencoder by DP-SGD, release the mean embedding of its codes, and fit to that.

    Labels are part of an image's record; the autoencoder does not see them. Networks and sizes are
    this project's: the authors' code for this variant was not found.

    Args:
        images_NCHW: float32 (N, 1, 28, 28) in [0, 1], ink 1; networks run on their device.
        labels_N: int64 (N,) in [0, ``num_classes``), about as many of each.
        num_classes: of the generator.
        settings: all but the noise, which is calibrated.
        epsilon: at most, under zero-out of a record, N being known.
        delta: in (0, 1).
        seed: of everything random. The noise too: who knows the seed can subtract it.
        progress: told the share that is done, in [0, 1].

    Raises:
        ValueError: fewer images than ``batch_size``.

    Source: DP-MERF, arXiv 2002.11603.
    """
    seeds, count = SeedStream(seed), len(labels_N)
    releases_at = partial(settings.releases, count)
    noise_multiplier = noise_for(releases_at, epsilon, delta)
    autoencoder = train_private_autoencoder(
        images_NCHW,
        settings.autoencoder,
        noise_multiplier,
        seeds,
        lambda share: progress(TRAINING_SHARE * share),
    )
    features = RandomFeatures(
        settings.autoencoder.code_dim,
        settings.frequencies,
        settings.kernel_variances,
        seeds.generator("frequencies"),
        images_NCHW.device,
    )
    released_FL = release_embedding(
        mean_embedding(features, autoencoder.codes(images_NCHW), labels_N, num_classes),
        count,
        RELATION,
        settings.embedding_noise_ratio * noise_multiplier,
        SeededNoise(seeds.generator("embedding noise")),
    )
    with initial_weights_from(seeds.torch_seed("generator")):
        generator = CodeGenerator(
            settings.latent_dim,
            num_classes,
            settings.generator_width,
            settings.autoencoder.code_dim,
        )
    fit_to_embedding(
        generator.to(images_NCHW.device),
        settings.latent_dim,
        features,
        released_FL.to(images_NCHW.device),
        settings.fitting,
        seeds.generator("latents"),
        lambda share: progress(TRAINING_SHARE + (1 - TRAINING_SHARE) * share),
    )
    return TrainedBaseline(
        sampler=sampler_on_labels_device(
            OnDevice(_Decoded(generator, autoencoder), images_NCHW.device),
            GeneratorConfig(latent_dim=settings.latent_dim, latent_kind="normal"),
        ),
        releases=releases_at(noise_multiplier),
        published_epsilon=_renyi_epsilon(settings, count, noise_multiplier, delta),
        published_accounting=PUBLISHED,
    )


def _renyi_epsilon(
    settings: DPMERFAutoencoderSettings, num_images: int, noise_multiplier: float, delta: float
) -> float:
    """Return the epsilon of the moments accountant, by Opacus."""
    training = rdp.compute_rdp(
        q=settings.autoencoder.batch_size / num_images,
        noise_multiplier=noise_multiplier,
        steps=settings.autoencoder.steps,
        orders=ORDERS,
    )
    embedding = rdp.compute_rdp(
        q=1.0,
        noise_multiplier=settings.embedding_noise_ratio * noise_multiplier,
        steps=1,
        orders=ORDERS,
    )
    epsilon, _ = rdp.get_privacy_spent(
        orders=ORDERS, rdp=np.asarray(training) + np.asarray(embedding), delta=delta
    )
    return float(epsilon)
