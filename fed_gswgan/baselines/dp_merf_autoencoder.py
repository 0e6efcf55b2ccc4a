"""DP-MERF AE: codes of a private autoencoder, a noisy mean embedding of them, and a generator.

Shapes: N images, B batch, C channels, H and W image, D code, F features, L classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.dp_merf import (
    FittingSettings,
    RandomFeatures,
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.baselines.dp_sgd import (
    ClippedSteps,
    gaussian_rdp,
    hook_warnings_ignored,
    noisy_sums,
    poisson_batch,
    renyi_epsilon,
)
from fed_gswgan.baselines.training import (
    OnDevice,
    TrainedBaseline,
    sampler_on_labels_device,
    with_classes,
)
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import GeneratorSettings, initial_weights_from
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, positive


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """Network, batches and clipping.

    Attributes:
        hidden_width: units of the one hidden layer of encoder and decoder each.
        code_dim: length of a code.
        steps: each is one release.
        batch_size: images in a Poisson batch on average.
        learning_rate: of Adam.
        clipping_bound: of an image's gradient with respect to all weights; an L2 norm.
    """

    hidden_width: int
    code_dim: int
    steps: int
    batch_size: int
    learning_rate: float
    clipping_bound: float

    def __post_init__(self) -> None:
        at_least(2, code_dim=self.code_dim)
        for name in ("hidden_width", "steps", "batch_size"):
            at_least(1, **{name: getattr(self, name)})
        positive(learning_rate=self.learning_rate)
        positive(clipping_bound=self.clipping_bound)


class Autoencoder(nn.Module):
    """Image to a code on the unit sphere and back; no layer mixes the rows of a batch."""

    def __init__(self, image_shape: tuple[int, ...], hidden_width: int, code_dim: int) -> None:
        super().__init__()
        self._image_shape, pixels = image_shape, math.prod(image_shape)
        self.encoder = nn.Sequential(
            nn.Linear(pixels, hidden_width), nn.ReLU(), nn.Linear(hidden_width, code_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code_dim, hidden_width), nn.ReLU(), nn.Linear(hidden_width, pixels)
        )

    def codes(self, images_BCHW: Tensor) -> Tensor:
        """Return codes_BD of norm 1."""
        return functional.normalize(self.encoder(images_BCHW.flatten(1)))

    def decoded(self, codes_BD: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1]."""
        return torch.sigmoid(self.decoder(codes_BD)).view(-1, *self._image_shape)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits of each pixel (B, C H W)."""
        logits: Tensor = self.decoder(self.codes(images_BCHW))
        return logits


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
        return functional.normalize(
            self.layers(with_classes(latents_BZ, labels_B, self._num_classes))
        )


class DecodedGenerator(nn.Module):
    """Latent and label to the image that an autoencoder decodes from the code."""

    def __init__(self, generator: CodeGenerator, autoencoder: Autoencoder) -> None:
        super().__init__()
        self._generator, self._autoencoder = generator, autoencoder

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1]."""
        return self._autoencoder.decoded(self._generator(latents_BZ, labels_B))


def train_private_autoencoder(
    images_NCHW: Tensor,
    settings: AutoencoderSettings,
    noise_multiplier: float,
    seeds: SeedStream,
    progress: Callable[[float], None],
) -> Autoencoder:
    """Train by DP-SGD on Poisson batches.

    Args:
        images_NCHW: float32 in [0, 1], at least ``batch_size`` of them.
        settings: all but the noise.
        noise_multiplier: noise on the sum, in units of the clipping bound.
        seeds: of weights, batches and noise.
        progress: told the share that is done, in [0, 1].
    """
    count, device = len(images_NCHW), images_NCHW.device
    with initial_weights_from(seeds.torch_seed("autoencoder")):
        network = Autoencoder(
            image_shape_of(images_NCHW), settings.hidden_width, settings.code_dim
        ).to(device)
    steps = ClippedSteps(
        network,
        torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
        clipping_bound=settings.clipping_bound,
        noise_multiplier=noise_multiplier,
        batch_size=settings.batch_size,
        noise_seed=seeds.torch_seed("autoencoder noise"),
    )
    draws = seeds.generator("poisson batches")
    with hook_warnings_ignored():
        for step in range(1, settings.steps + 1):
            chosen = poisson_batch(count, settings.batch_size / count, draws).to(device)
            steps.take(partial(reconstruction_losses, images_BCHW=images_NCHW[chosen]))
            progress(step / settings.steps)
    steps.remove_hooks()
    return network.eval().requires_grad_(False)


def reconstruction_losses(autoencoder: nn.Module, images_BCHW: Tensor) -> Tensor:
    """Return the cross-entropy of each image's pixels, summed, (B,)."""
    logits_BP, pixels_BP = autoencoder(images_BCHW), images_BCHW.flatten(1)
    losses_BP = functional.binary_cross_entropy_with_logits(logits_BP, pixels_BP, reduction="none")
    return losses_BP.sum(1)


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


PUBLISHED = (
    "Rényi accounting of Poisson batches and of one Gaussian together (DP-MERF, arXiv 2002.11603)"
)
TRAINING_SHARE = 0.8  # of the work, for the progress that is told


def train(
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

    Arguments are those of ``Method.train``; epsilon holds under zero-out of a record, with N
    known; about as many images of each class are expected.

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
            OnDevice(DecodedGenerator(generator, autoencoder), images_NCHW.device),
            GeneratorSettings(latent_dim=settings.latent_dim, latent_kind="normal"),
        ),
        releases=releases_at(noise_multiplier),
        published_epsilon=renyi_epsilon(
            gaussian_rdp(
                noise_multiplier,
                settings.autoencoder.batch_size / count,
                settings.autoencoder.steps,
            )
            + gaussian_rdp(settings.embedding_noise_ratio * noise_multiplier),
            delta,
        ),
        published_accounting=PUBLISHED,
    )
