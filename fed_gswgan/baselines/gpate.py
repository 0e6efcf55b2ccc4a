"""G-PATE: a generator follows gradient directions on which many discriminators vote.

Shapes: N images, B batch, Z latent, C channels, H and W image, P pixels, K coordinates of the
projection, V bins, M teachers, Q queries, R Rényi orders.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.baselines.conditional_generators import conditional_generator
from fed_gswgan.baselines.confident_votes import BINS, THRESHOLD_SHARE, confident_winners, vote
from fed_gswgan.baselines.gnmax_accounting import (
    ORDERS,
    epsilon_of_rdp,
    threshold_rdp,
    votes_rdp,
)
from fed_gswgan.baselines.gpate_settings import GPATESettings
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.teachers_on_shards import teachers_on_shards
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream

PUBLISHED = (
    "Rényi accounting that depends on the votes, and so on the data (arXiv 1906.09338, 1802.08908)"
)


def train_gpate(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: GPATESettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Train a generator that learns of the images by votes alone.

    In a step every teacher trains on its shard and the step's samples, computes its gradient with
    respect to the samples, projects it to a few random directions and votes on each coordinate. The
    winners' midpoints, projected back, are the gradient that the generator follows: a step of
    regression to samples - gradient.

    Args:
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; networks run on their device.
        labels_N: int64 (N,) in [0, ``num_classes``).
        num_classes: of the conditional networks.
        settings: all but the noise, which is calibrated.
        epsilon: at most, under replace-one of a record.
        delta: in (0, 1).
        seed: of everything random. The noise too: who knows the seed can subtract it.
        progress: told the share that is done, in [0, 1].

    Raises:
        ValueError: fewer images than teachers.

    Source: G-PATE, arXiv 1906.09338, algorithm 1; teachers are smaller here, and the noise fits the
        epsilon above.
    """
    seeds = SeedStream(seed)
    noise_stddev = noise_for(settings.releases, epsilon, delta)
    threshold_noise_stddev = settings.threshold_noise_ratio * noise_stddev
    noise = SeededNoise(seeds.generator("noise"))
    device = images_NCHW.device
    config = GeneratorSettings(
        latent_dim=settings.latent_dim,
        latent_kind="normal",
        generator_learning_rate=settings.generator_learning_rate,
        adam_beta1=settings.adam.adam_beta1,
        adam_beta2=settings.adam.adam_beta2,
    )
    teachers = teachers_on_shards(images_NCHW, labels_N, num_classes, settings, seeds)
    network = conditional_generator(
        settings.generator,
        image_shape_of(images_NCHW),
        settings.latent_dim,
        num_classes,
        settings.generator_width,
        seeds.torch_seed("generator"),
    )
    trainer = GeneratorTrainer(OnDevice(network, device), config)
    draws, projections = seeds.generator("latents"), seeds.generator("projections")
    rdp_R = np.zeros_like(ORDERS)
    for step in range(settings.steps):
        latents_BZ = draw_latents(
            settings.batch_size, config.latent_dim, config.latent_kind, draws
        ).to(device)
        labels_B = draw_labels(settings.batch_size, num_classes, draws).to(device)
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        samples_BP = samples_BCHW.flatten(1)
        for _ in range(settings.teacher_steps):
            teachers.train(samples_BP, labels_B, settings.teacher_batch_size)
        shape = (samples_BP.shape[1], settings.projection_dim)
        projection_PK = torch.from_numpy(projections.standard_normal(shape, dtype=np.float32))
        coordinates_MBK = teachers.projected_gradients(
            samples_BP, labels_B, projection_PK.to(device)
        )
        counts_BKV = vote(coordinates_MBK, settings.gradient_bound)
        winners_BK, enough_BK = confident_winners(
            counts_BKV, settings.teachers, noise_stddev, threshold_noise_stddev, noise
        )
        midpoints_BK = np.where(enough_BK, (2 * winners_BK + 1) / BINS - 1, 0.0)
        released_BK = torch.from_numpy(midpoints_BK.astype(np.float32))
        gradient_BCHW = (released_BK @ projection_PK.T).to(device).view_as(samples_BCHW)
        trainer.step(latents_BZ, labels_B, gradient_BCHW)
        counts_QV, enough_Q = counts_BKV.reshape(-1, BINS), enough_BK.ravel()
        rdp_R += threshold_rdp(
            counts_QV, THRESHOLD_SHARE * settings.teachers, threshold_noise_stddev
        ) + votes_rdp(counts_QV[enough_Q], noise_stddev)
        progress((step + 1) / settings.steps)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, config),
        releases=settings.releases(noise_stddev),
        published_epsilon=epsilon_of_rdp(rdp_R, delta),
        published_accounting=PUBLISHED,
    )
