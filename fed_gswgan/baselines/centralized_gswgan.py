"""Centralised GS-WGAN: many critics on disjoint shards of one data set, one of them a step.

Shapes: N images, B batch, C channels, H and W image.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import published_epsilon
from fed_gswgan.baselines.centralized_gswgan_settings import CentralizedGSWGANSettings
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.shard_critics import ShardCritics, disjoint_shards
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.data.client_dataset import DataSpec, image_shape_of
from fed_gswgan.models.registry import build_generator
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.privacy.mechanism import grid_step, privatize
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream

NO_NUMBERS = np.empty(0)
PUBLISHED = (
    "Rényi accounting of steps x rows releases, each row sampled by itself (arXiv 2006.08265)"
)


def train_centralized_gswgan(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: CentralizedGSWGANSettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Train a generator on the sanitized gradients of critics that never see the same record.

    With ``critic_state = snapshot`` a step depends on the data, on what was released before and on
    a fresh secret draw of the critic, and on nothing else: the draw amplifies. A ``persistent``
    critic remembers in which steps it was drawn, no amplification is proven for it, and the draws
    count as known.

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
        ValueError: fewer images than critics, or a setting out of its range.

    Source: GS-WGAN, arXiv 2006.08265, algorithm 1; noise and accounting are this project's.
    """
    seeds = SeedStream(seed)
    event = settings.event(noise_for(settings.releases, epsilon, delta))
    total = settings.critics + settings.steps
    shards = disjoint_shards(images_NCHW, labels_N, settings.critics, seeds.generator("shards"))
    critics = ShardCritics(
        shards, num_classes, settings, images_NCHW.device, seeds, lambda n: progress(n / total)
    )
    spec = DataSpec(image_shape_of(images_NCHW), num_classes)
    network = build_generator(settings.generator, spec, seeds.torch_seed("generator"))
    trainer = GeneratorTrainer(OnDevice(network, images_NCHW.device), settings.generator)
    latent_dim, latent_kind = settings.generator.latent_dim, settings.generator.latent_kind
    draws = seeds.generator("selection and latents")
    for step in range(settings.steps):
        latents_BZ = draw_latents(settings.batch_size, latent_dim, latent_kind, draws)
        labels_B = draw_labels(settings.batch_size, num_classes, draws)
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        drawn = int(draws.integers(settings.critics))
        gradients_BCHW = critics.gradients(drawn, samples_BCHW, labels_B, step)
        rows_BP = gradients_BCHW.reshape(len(gradients_BCHW), -1)
        noise = SeededNoise(seeds.generator("noise", step))
        steps = privatize(rows_BP, NO_NUMBERS, event, noise).reshape(gradients_BCHW.shape)
        released_BCHW = (steps * grid_step(event)).astype(np.float32)
        trainer.step(latents_BZ, labels_B, torch.from_numpy(released_BCHW))
        progress((settings.critics + step + 1) / total)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, settings.generator),
        releases=settings.releases(event.noise_stddev),
        published_epsilon=published_epsilon(event, 1 / settings.critics, settings.steps, delta),
        published_accounting=PUBLISHED,
    )
