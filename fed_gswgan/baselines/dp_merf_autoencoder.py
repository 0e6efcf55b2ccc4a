"""DP-MERF AE: codes of a private autoencoder, a noisy mean embedding of them, and a generator.

Shapes: N images, C channels, H and W image, F features, L classes.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.baselines.code_generator import CodeGenerator, DecodedGenerator
from fed_gswgan.baselines.dp_merf_autoencoder_settings import RELATION, DPMERFAutoencoderSettings
from fed_gswgan.baselines.mean_embedding import (
    fit_to_embedding,
    mean_embedding,
    release_embedding,
)
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.private_autoencoder import train_private_autoencoder
from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.baselines.renyi_accounting import gaussian_rdp, renyi_epsilon
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.models.registry import GeneratorSettings, initial_weights_from
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream

PUBLISHED = (
    "Rényi accounting of Poisson batches and of one Gaussian together (DP-MERF, arXiv 2002.11603)"
)
TRAINING_SHARE = 0.8  # of the work, for the progress that is told


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
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; networks run on their device.
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
