"""G-PATE: a generator follows gradient directions on which many discriminators vote.

A record lies in the shard of one teacher. Another record changes that teacher in any way, and all
others not at all, so in each query, one coordinate of one sample's gradient, it moves one vote from
one bin to another: two counts by 1, sqrt(2) in L2, and the largest count by 1. What a query
releases is computed from counts + N(0, s2^2) and from the largest count + N(0, s1^2); it is
Gaussian with mu^2 = 2 / s2^2 + 1 / s1^2 at most, whatever was released before and whether or not
the votes pass the threshold. The mu^2 of all queries add up. No votes enter this: epsilon is known
before training.

Shapes: N images, B batch, Z latent, C channels, H and W image, P pixels, K coordinates of the
projection, V bins, M teachers, Q queries.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.baselines.conditional_generators import GENERATORS, conditional_generator
from fed_gswgan.baselines.gnmax_accounting import (
    ORDERS,
    epsilon_of_rdp,
    threshold_rdp,
    votes_rdp,
)
from fed_gswgan.baselines.linear_teachers import LinearTeachers
from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.baselines.teachers import Teachers
from fed_gswgan.baselines.trained_baseline import TrainedBaseline
from fed_gswgan.config import AdamConfig, GeneratorConfig
from fed_gswgan.privacy.declared_releases import DeclaredRelease
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.noise_source import NoiseSource, SeededNoise
from fed_gswgan.privacy.release_calibration import noise_for
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.validation import at_least, one_of, positive

BINS = 10  # Source: G-PATE's code, as is the next
THRESHOLD_SHARE = 0.5  # of the teachers
ADAM = AdamConfig(adam_beta2=0.9)
PUBLISHED = (
    "Rényi accounting that depends on the votes, and so on the data (arXiv 1906.09338, 1802.08908)"
)


@dataclass(frozen=True, kw_only=True)
class GPATESettings:
    """Teachers, steps and votes.

    Attributes:
        teachers: shards, of equal size; what is left over is not used.
        teacher_width: hidden units; 0: a linear score for each class.
        teacher_steps: of every teacher before a step of the generator; they release nothing.
        teacher_batch_size: images in a teacher's step.
        steps: of the generator.
        batch_size: samples in a step.
        projection_dim: coordinates of a sample's gradient that are voted on.
        gradient_bound: a coordinate is clipped to +- this before it is binned.
        threshold_noise_ratio: of the noise of the largest count to that of the votes.
    """

    teachers: int
    teacher_width: int
    teacher_learning_rate: float
    teacher_steps: int
    teacher_batch_size: int
    steps: int
    batch_size: int
    generator: str
    generator_width: int
    generator_learning_rate: float
    latent_dim: int
    projection_dim: int = 10
    gradient_bound: float = 1e-4
    threshold_noise_ratio: float = 6.0
    adam: AdamConfig = ADAM

    def __post_init__(self) -> None:
        at_least(2, teachers=self.teachers)
        at_least(0, teacher_width=self.teacher_width)
        positive(teacher_learning_rate=self.teacher_learning_rate)
        at_least(1, teacher_steps=self.teacher_steps)
        at_least(1, teacher_batch_size=self.teacher_batch_size)
        at_least(1, steps=self.steps)
        at_least(1, batch_size=self.batch_size)
        one_of(GENERATORS, generator=self.generator)
        at_least(1, generator_width=self.generator_width)
        positive(generator_learning_rate=self.generator_learning_rate)
        at_least(1, latent_dim=self.latent_dim)
        at_least(1, projection_dim=self.projection_dim)
        positive(gradient_bound=self.gradient_bound)
        positive(threshold_noise_ratio=self.threshold_noise_ratio)

    @property
    def queries(self) -> int:
        """How many votes are taken in all."""
        return self.steps * self.batch_size * self.projection_dim

    def releases(self, noise_stddev: float) -> tuple[DeclaredRelease, ...]:
        """Return what all queries release at this noise of the votes."""
        return (
            DeclaredRelease(
                what="bins with the most votes, counts being noisy",
                mu=math.sqrt(2) / noise_stddev,
                rounds=self.queries,
                relation=NeighboringRelation.REPLACE_ONE,
            ),
            DeclaredRelease(
                what="whether the largest count, being noisy, reaches the threshold",
                mu=1 / (self.threshold_noise_ratio * noise_stddev),
                rounds=self.queries,
                relation=NeighboringRelation.REPLACE_ONE,
            ),
        )


SMALL = GPATESettings(
    teachers=2000,
    teacher_width=0,
    teacher_learning_rate=3e-2,
    teacher_steps=1,
    teacher_batch_size=8,
    steps=400,
    batch_size=20,
    projection_dim=10,
    threshold_noise_ratio=3.0,
    generator="shallow",
    generator_width=128,
    generator_learning_rate=2e-3,
    latent_dim=4,
)
"""Two minutes on one core.

As many teachers as published, since the noise is measured against their number. With hidden units
they did not agree on what makes a class in the few steps that there are, with or without noise;
linear ones do, and a step of theirs costs little, so that there can be more steps of few votes.
The generator has a weight for every pixel: where pixels share weights, votes that weigh all alike
turn every sample black. Few latents, beside which the class is heard.
"""

FULL = GPATESettings(
    teachers=2000,
    teacher_width=64,
    teacher_learning_rate=1e-3,
    teacher_steps=2,
    teacher_batch_size=30,
    steps=50,
    batch_size=64,
    generator="dcgan",
    generator_width=64,
    generator_learning_rate=1e-3,
    latent_dim=100,
)
"""The published teachers, batch, projection and threshold.

So few steps, since the published noise of 100 on the votes affords 30 of them at a true epsilon of
10, and 50 take 127.
"""


def vote(coordinates_MBK: Tensor, gradient_bound: float) -> np.ndarray:
    """Return counts (B, K, V): each teacher's vote for the bin of each of its coordinates.

    Guarantees: a teacher adds 1 to one bin of each query, whatever it holds; NaN counts as 0.
    """
    clipped = torch.nan_to_num(coordinates_MBK).clamp(-gradient_bound, gradient_bound)
    bins_MBK = ((clipped / gradient_bound + 1) / 2 * BINS).long().clamp(0, BINS - 1)
    _, batch_size, dim = bins_MBK.shape
    queries_BK = torch.arange(batch_size * dim, device=bins_MBK.device).view(batch_size, dim)
    counts = torch.bincount(
        (bins_MBK + BINS * queries_BK).flatten(), minlength=batch_size * dim * BINS
    )
    counts_BKV: np.ndarray = counts.view(batch_size, dim, BINS).cpu().numpy()
    return counts_BKV


def confident_winners(
    counts_BKV: np.ndarray,
    teachers: int,
    noise_stddev: float,
    threshold_noise_stddev: float,
    noise: NoiseSource,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin that wins each query under noise, and whether it has enough votes.

    Source: the Confident-GNMax aggregator of arXiv 1802.08908, algorithm 1.
    """
    largest_BK = noise.add_noise(counts_BKV.max(axis=2), threshold_noise_stddev)
    winners_BK = noise.add_noise(counts_BKV, noise_stddev).argmax(axis=2)
    return winners_BK, largest_BK >= THRESHOLD_SHARE * teachers


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
        images_NCHW: float32 (N, 1, 28, 28) in [0, 1], ink 1; networks run on their device.
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
    config = GeneratorConfig(
        latent_dim=settings.latent_dim,
        latent_kind="normal",
        generator_learning_rate=settings.generator_learning_rate,
    )
    teachers = _teachers(images_NCHW, labels_N, num_classes, settings, seeds)
    network = conditional_generator(
        settings.generator,
        settings.latent_dim,
        num_classes,
        settings.generator_width,
        seeds.torch_seed("generator"),
    )
    trainer = GeneratorTrainer(OnDevice(network, device), config, settings.adam)
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


def _teachers(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: GPATESettings,
    seeds: SeedStream,
) -> Teachers | LinearTeachers:
    """Deal the images to shards of one size at random."""
    size = len(labels_N) // settings.teachers
    if size == 0:
        raise ValueError(
            f"teachers={settings.teachers} must be at most the {len(labels_N)} training images"
        )
    order = torch.from_numpy(seeds.generator("shards").permutation(len(labels_N)))
    order_MS = order[: size * settings.teachers].view(settings.teachers, size)
    order_MS = order_MS.to(labels_N.device)
    shards = images_NCHW[order_MS].flatten(2), labels_N[order_MS]
    rate, randomness = settings.teacher_learning_rate, seeds.generator("teachers")
    if settings.teacher_width == 0:
        return LinearTeachers(*shards, num_classes, rate, randomness)
    return Teachers(*shards, num_classes, settings.teacher_width, rate, randomness)
