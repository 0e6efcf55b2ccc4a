"""DP-MERF: one noisy mean embedding is all that a generator learns of the images.

Shapes: N images, B batch, C channels, H and W image, P pixels, F features, L classes.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.dp_merf_settings import DPMERFSettings
from fed_gswgan.baselines.mean_embedding import (
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.baselines.subpixel_generator import SubpixelGenerator
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import GeneratorSettings, initial_weights_from
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream

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


def train_dp_merf(
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

    Args:
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; networks run on their device.
        labels_N: int64 (N,) in [0, ``num_classes``), about as many of each.
        num_classes: of the generator.
        settings: all but the noise, which is calibrated.
        epsilon: at most, under replacement of a record, image and label.
        delta: in (0, 1).
        seed: of everything random. The noise too: who knows the seed can subtract it.
        progress: told the share that is done, in [0, 1].

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
