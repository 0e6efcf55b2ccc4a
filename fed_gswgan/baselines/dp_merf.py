"""DP-MERF: a noisy mean embedding of the images, released once, and a generator fitted to it.

Shapes: N images, B samples, P pixels, W frequencies, F features, L classes, Z latent, C channels,
H and W image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.training import (
    OnDevice,
    TrainedBaseline,
    sampler_on_labels_device,
    with_classes,
)
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.generators import quarter_of
from fed_gswgan.models.registry import GeneratorSettings, initial_weights_from
from fed_gswgan.models.trainer import draw_latents
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import NoiseSource, SeededNoise
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, positive


class RandomFeatures:
    """Cosines and sines of random projections, drawn without any data.

    The dot product of two points' features is about the mean, over the variances v, of
    exp(-|difference|^2 / (2 v)). Each point's features have norm 1 up to rounding, whatever it is,
    since cos^2 + sin^2 = 1: a bound that needs no clipping.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines (NIPS 2007).
    """

    def __init__(
        self,
        dimensions: int,
        frequencies: int,
        kernel_variances: tuple[float, ...],
        randomness: np.random.Generator,
        device: torch.device,
    ) -> None:
        """Draw the frequencies.

        Args:
            dimensions: of a point, P.
            frequencies: W, spread evenly over the variances.
            kernel_variances: of the Gaussian kernels, in squared units of the points.
            randomness: of the frequencies.
            device: of the points.
        """
        variances_W1 = np.resize(kernel_variances, frequencies)[:, None]
        drawn_WP = randomness.standard_normal((frequencies, dimensions)) / np.sqrt(variances_W1)
        self._frequencies_WP = torch.from_numpy(drawn_WP.astype(np.float32)).to(device)

    @property
    def count(self) -> int:
        """How many features a point has, F = 2 W."""
        return 2 * len(self._frequencies_WP)

    def __call__(self, points_NP: Tensor) -> Tensor:
        """Return features_NF of float32 points."""
        angles_NW = points_NP @ self._frequencies_WP.T
        features_NF = torch.cat([angles_NW.cos(), angles_NW.sin()], dim=1)
        return features_NF / math.sqrt(len(self._frequencies_WP))


POINTS_AT_ONCE = 2000


@torch.no_grad()
def mean_embedding(
    features: RandomFeatures, points_NP: Tensor, labels_N: Tensor, num_classes: int
) -> Tensor:
    """Return the mean over N of features x one-hot label, float64 (F, L): private.

    A point adds a matrix of norm 1 over N, in the column of its class.
    """
    sums_FL = torch.zeros((features.count, num_classes), dtype=torch.float64)
    for start in range(0, len(points_NP), POINTS_AT_ONCE):
        chosen = slice(start, start + POINTS_AT_ONCE)
        classes_NL = functional.one_hot(labels_N[chosen], num_classes).float()
        sums_FL += (features(points_NP[chosen]).T @ classes_NL).cpu()
    return sums_FL / len(points_NP)


def release_embedding(
    embedding_FL: Tensor,
    count: int,
    relation: NeighboringRelation,
    noise_multiplier: float,
    noise: NoiseSource,
) -> Tensor:
    """Return the embedding with Gaussian noise on it, float32 (F, L).

    Args:
        embedding_FL: of ``mean_embedding``.
        count: N, public and the same for neighbours.
        relation: a point that is replaced moves the embedding by 2 / N at most, one that is zeroed
            out, features and all, by 1 / N.
        noise_multiplier: noise over that sensitivity.
        noise: where it comes from.
    """
    sensitivity = relation.sensitivity_multiple / count
    noisy_FL = noise.add_noise(embedding_FL.cpu().numpy(), noise_multiplier * sensitivity)
    return torch.from_numpy(noisy_FL.astype(np.float32)).to(embedding_FL.device)


@dataclass(frozen=True, kw_only=True)
class FittingSettings:
    """How a generator is fitted to an embedding; no data are left to protect.

    Attributes:
        steps: of Adam.
        samples_per_class: in each step, at least 2.
        learning_rate: at first.
        final_learning_rate_share: of it that is left at the end; it falls geometrically.
    """

    steps: int
    samples_per_class: int
    learning_rate: float
    final_learning_rate_share: float

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(2, samples_per_class=self.samples_per_class)
        positive(learning_rate=self.learning_rate)
        positive(final_learning_rate_share=self.final_learning_rate_share)


def embedding_distance(sample_features_BF: Tensor, released_FL: Tensor) -> Tensor:
    """Return the squared distance of the samples' embedding from the one released, a scalar.

    Without bias: the pairs of a sample with itself, which a batch has too many of, are left out and
    the others count for them. So it may be negative; its expectation is the squared distance of
    the generator's own embedding.

    Args:
        sample_features_BF: of samples whose labels are 0, 1, .. L-1, 0, 1, ..; as many of each
            class, 2 at least.
        released_FL: of data with about as many points of each class.

    Source: DP-MERF, arXiv 2002.11603, the objective; Gretton et al., A Kernel Two-Sample Test
        (JMLR 2012), section 2.2, the estimate.
    """
    classes = released_FL.shape[1]
    sample_features_KLF = sample_features_BF.view(-1, classes, sample_features_BF.shape[1])
    per_class = len(sample_features_KLF)
    embedding_FL = sample_features_KLF.mean(0).T / classes
    own_pairs = 1 / (per_class * classes)
    squared_norm = (embedding_FL.square().sum() - own_pairs) * (per_class / (per_class - 1))
    distance: Tensor = squared_norm + (released_FL - 2 * embedding_FL).mul(released_FL).sum()
    return distance


def fit_to_embedding(
    generator: nn.Module,
    latent_dim: int,
    features: RandomFeatures,
    released_FL: Tensor,
    settings: FittingSettings,
    randomness: np.random.Generator,
    progress: Callable[[float], None],
) -> None:
    """Train a generator until its samples have the embedding that was released.

    Args:
        generator: (latents_BZ, labels_B) to points; may mix the rows of a batch. It is left in
            evaluation mode.
        latent_dim: Z, of standard normal latents.
        features: those of the embedding.
        released_FL: all that is seen of the data, on the generator's device.
        settings: of the fit.
        randomness: of the latents.
        progress: told the share that is done, in [0, 1].
    """
    device, num_classes = released_FL.device, released_FL.shape[1]
    labels_B = torch.arange(num_classes, device=device).repeat(settings.samples_per_class)
    optimizer = torch.optim.Adam(generator.parameters(), lr=settings.learning_rate)
    decay = settings.final_learning_rate_share ** (1 / settings.steps)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    generator.train()
    for step in range(1, settings.steps + 1):
        latents_BZ = draw_latents(len(labels_B), latent_dim, "normal", randomness).to(device)
        samples_BP = generator(latents_BZ, labels_B).flatten(1)
        loss = embedding_distance(features(samples_BP), released_FL)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step / settings.steps)
    generator.eval()


BACKGROUND_LOGIT = -2.0  # a pixel's at first: images are mostly background


class SubpixelGenerator(nn.Module):
    """Latent and one-hot label to a hidden layer, to a quarter of the size, doubled twice.

    Height and width of an image must be divisible by 4.

    Batch norm mixes the rows of a batch while it is trained: only for a generator that sees no
    image, and no gradient that was computed from a single one.

    Source: sub-pixel convolution, arXiv 1609.05158; the sizes of dense layers and features are
        those of DP-MERF (arXiv 2002.11603), which interpolates instead, at four times the cost on
        a CPU.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_dim: int,
        num_classes: int,
        hidden_width: int,
        channels: int,
    ) -> None:
        super().__init__()
        self._num_classes = num_classes
        quarter = quarter_of(image_shape)
        features = channels * math.prod(quarter)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + num_classes, hidden_width),
            nn.BatchNorm1d(hidden_width),
            nn.ReLU(),
            nn.Linear(hidden_width, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Unflatten(1, (channels, *quarter)),
            nn.Conv2d(channels, 4 * (channels // 2), 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
        )
        self.to_image = nn.Conv2d(channels // 2, 4 * image_shape[0], 3, padding=1)
        nn.init.constant_(self.to_image.bias, BACKGROUND_LOGIT)  # type: ignore[arg-type]

    def forward(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW, float32 in [0, 1], ink 1, of the classes asked for."""
        features = self.layers(with_classes(latents_BZ, labels_B, self._num_classes))
        return torch.sigmoid(functional.pixel_shuffle(self.to_image(features), 2))


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


RELATION = NeighboringRelation.REPLACE_ONE
PUBLISHED = "Rényi accounting of one Gaussian (DP-MERF, arXiv 2002.11603, its code)"


def releases(noise_multiplier: float) -> tuple[DeclaredRelease, ...]:
    """Return what is released at this noise, in units of the sensitivity 2 / N."""
    return (
        DeclaredRelease(
            what="noisy mean of random features of images, by class",
            mu=1 / noise_multiplier,
            rounds=1,
            relation=RELATION,
        ),
    )


def train(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: DPMERFSettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Release the images' mean embedding once, with noise, and fit a generator to what is released.

    Arguments are those of ``Method.train``; epsilon holds under replacement of a record,
    image and label; about as many images of each class are expected.

    Source: DP-MERF, arXiv 2002.11603.
    """
    seeds = SeedStream(seed)
    noise_multiplier = noise_for(releases, epsilon, delta)
    points_NP = images_NCHW.flatten(1)
    features = RandomFeatures(
        points_NP.shape[1],
        settings.frequencies,
        settings.kernel_variances,
        seeds.generator("frequencies"),
        images_NCHW.device,
    )
    released_FL = release_embedding(
        mean_embedding(features, points_NP, labels_N, num_classes),
        len(labels_N),
        RELATION,
        noise_multiplier,
        SeededNoise(seeds.generator("embedding noise")),
    )
    generator = generator_from(
        released_FL.to(images_NCHW.device),
        image_shape_of(images_NCHW),
        features,
        settings,
        seeds,
        progress,
    )
    return TrainedBaseline(
        sampler=sampler_on_labels_device(
            OnDevice(generator, images_NCHW.device),
            GeneratorSettings(latent_dim=settings.latent_dim, latent_kind="normal"),
        ),
        releases=releases(noise_multiplier),
        published_epsilon=_renyi_epsilon(noise_multiplier, delta),
        published_accounting=PUBLISHED,
    )


def generator_from(
    released_FL: Tensor,
    image_shape: tuple[int, int, int],
    features: RandomFeatures,
    settings: DPMERFSettings,
    seeds: SeedStream,
    progress: Callable[[float], None],
) -> nn.Module:
    """Return a generator whose samples have the embedding that was released.

    Args:
        released_FL: of the images; nothing else of them is seen.
        image_shape: (C, H, W) of a sample; H and W divisible by 4.
        features: those of the embedding.
        settings: of the generator and its fit.
        seeds: of weights and latents.
        progress: told the share that is done, in [0, 1].
    """
    with initial_weights_from(seeds.torch_seed("generator")):
        generator = SubpixelGenerator(
            image_shape,
            settings.latent_dim,
            released_FL.shape[1],
            settings.hidden_width,
            settings.channels,
        ).to(released_FL.device)
    fit_to_embedding(
        generator,
        settings.latent_dim,
        features,
        released_FL,
        settings.fitting,
        seeds.generator("latents"),
        progress,
    )
    return generator


def _renyi_epsilon(noise_multiplier: float, delta: float) -> float:
    """Return the best bound over all Rényi orders, in closed form.

    Source: order / (2 noise^2) of one Gaussian, and the conversion of arXiv 1702.07476,
        proposition 3.
    """
    return 1 / (2 * noise_multiplier**2) + math.sqrt(2 * math.log(1 / delta)) / noise_multiplier
