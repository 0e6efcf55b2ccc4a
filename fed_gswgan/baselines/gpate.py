"""G-PATE: a generator follows gradient directions on which many discriminators vote.

A record lies in the shard of one teacher. Another record changes that teacher in any way, and all
others not at all, so in each query, one coordinate of one sample's gradient, it moves one vote from
one bin to another: two counts by 1, sqrt(2) in L2, and the largest count by 1. What a query
releases is computed from counts + N(0, s2^2) and from the largest count + N(0, s1^2); it is
Gaussian with mu^2 = 2 / s2^2 + 1 / s1^2 at most, whatever was released before and whether or not
the votes pass the threshold. The mu^2 of all queries add up. No votes enter this: epsilon is known
before training. The authors' own accounting reads the votes, so that it is no guarantee, and what
it says would itself have to be released with noise; it is not computed.

Shapes: N images, M teachers, S images of a shard, R images of a teacher's batch, B samples, P
pixels, D hidden units, L classes, K coordinates of the projection, V bins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.training import (
    GENERATORS,
    TrainedBaseline,
    conditional_trainer,
    draw_batch,
    sampler_on_labels_device,
)
from fed_gswgan.models.registry import AdamSettings
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import NoiseSource, SeededNoise
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, one_of, positive

ADAM = AdamSettings(adam_beta2=0.9)


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
    adam: AdamSettings = ADAM

    def __post_init__(self) -> None:
        at_least(2, teachers=self.teachers)
        at_least(0, teacher_width=self.teacher_width)
        one_of(GENERATORS, generator=self.generator)
        for name in ("teacher_steps", "teacher_batch_size", "steps", "batch_size",
                     "generator_width", "latent_dim", "projection_dim"):  # fmt: skip
            at_least(1, **{name: getattr(self, name)})
        for name in ("teacher_learning_rate", "generator_learning_rate", "gradient_bound",
                     "threshold_noise_ratio"):  # fmt: skip
            positive(**{name: getattr(self, name)})

    def releases(self, noise_stddev: float) -> tuple[DeclaredRelease, ...]:
        """Return what all queries release at this noise of the votes."""
        queries = self.steps * self.batch_size * self.projection_dim
        return (
            DeclaredRelease(
                what="bins with the most votes, counts being noisy",
                mu=math.sqrt(2) / noise_stddev,
                rounds=queries,
                relation=NeighboringRelation.REPLACE_ONE,
            ),
            DeclaredRelease(
                what="whether the largest count, being noisy, reaches the threshold",
                mu=1 / (self.threshold_noise_ratio * noise_stddev),
                rounds=queries,
                relation=NeighboringRelation.REPLACE_ONE,
            ),
        )


SMALL = GPATESettings(
    teachers=500,
    teacher_width=0,
    teacher_learning_rate=3e-2,
    teacher_steps=1,
    teacher_batch_size=20,
    steps=800,
    batch_size=20,
    projection_dim=10,
    threshold_noise_ratio=3.0,
    generator="shallow",
    generator_width=128,
    generator_learning_rate=5e-3,
    latent_dim=1,
)
"""Two minutes on one core.

A quarter of the published teachers. The more teachers there are, the smaller are their shards, and
the less ink the samples have at these steps and rates: of 2,000, hardly any was left before the
classes came apart. docs/results.md has the search.

With hidden units teachers did not agree on what makes a class in the few steps that there are;
linear ones do, and a step of theirs costs little, so that there can be more steps of few votes.
The generator has a weight for every pixel: where pixels share weights, votes that weigh all alike
turn every sample black. One latent, beside which the class is heard. Chosen on 5,000 training
images held out.
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


def draw_shard_batches(
    images_MSP: Tensor, labels_MS: Tensor, batch_size: int, randomness: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return (images_MRP, labels_MR): each teacher's, from its shard alone, with replacement."""
    count, shard_size = labels_MS.shape
    rows = randomness.integers(shard_size, size=(count, batch_size))
    rows_MR = torch.from_numpy(rows).to(images_MSP.device)
    teachers_M1 = torch.arange(count, device=images_MSP.device)[:, None]
    return images_MSP[teachers_M1, rows_MR], labels_MS[teachers_M1, rows_MR]


NEGATIVE_SLOPE = 0.2


class Teachers:
    """All teachers' weights in one tensor a layer, so that a step is a few products of batches.

    A teacher is image - hidden layer - logit with a projection on the class. No operation mixes two
    teachers: its weights depend on its own shard and on samples.
    """

    def __init__(
        self,
        images_MSP: Tensor,
        labels_MS: Tensor,
        num_classes: int,
        width: int,
        learning_rate: float,
        randomness: np.random.Generator,
    ) -> None:
        """Keep the shards and draw the weights.

        Args:
            images_MSP: float32 in [0, 1]; shards of one size.
            labels_MS: int64 in [0, ``num_classes``).
            num_classes: of the projections.
            width: hidden units of a teacher.
            learning_rate: of Adam.
            randomness: of weights, and later of batches.
        """
        self._images_MSP, self._labels_MS = images_MSP, labels_MS
        self._randomness = randomness
        count, _, pixels = images_MSP.shape

        def weights(*shape: int, fan_in: int) -> Tensor:
            values = randomness.standard_normal((count, *shape), dtype=np.float32)
            drawn = torch.from_numpy(values / np.float32(math.sqrt(fan_in))).to(images_MSP.device)
            return drawn.requires_grad_()

        self._hidden_MPD = weights(pixels, width, fan_in=pixels)
        self._bias_M1D = weights(1, width, fan_in=pixels)
        self._class_MLD = weights(num_classes, width, fan_in=width)
        self._score_M1D = weights(1, width, fan_in=width)
        parameters = [self._hidden_MPD, self._bias_M1D, self._class_MLD, self._score_M1D]
        self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999))

    def train(self, samples_BP: Tensor, labels_B: Tensor, batch_size: int) -> None:
        """Take one step of every teacher, on so many of its images against the samples."""
        count = len(self._labels_MS)
        real_MB = self._logits(
            *draw_shard_batches(self._images_MSP, self._labels_MS, batch_size, self._randomness)
        )
        fake_MB = self._logits(samples_BP.expand(count, -1, -1), labels_B.expand(count, -1))
        losses_M = functional.softplus(-real_MB).mean(1) + functional.softplus(fake_MB).mean(1)
        self._optimizer.zero_grad()
        losses_M.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def projected_gradients(
        self, samples_BP: Tensor, labels_B: Tensor, projection_PK: Tensor
    ) -> Tensor:
        """Return (M, B, K): each teacher's gradient of -log D(sample), projected; private."""
        count = len(self._labels_MS)
        inputs_MBP = samples_BP.expand(count, -1, -1).clone().requires_grad_()
        loss = functional.softplus(-self._logits(inputs_MBP, labels_B.expand(count, -1))).sum()
        (gradients_MBP,) = torch.autograd.grad(loss, inputs_MBP)
        return gradients_MBP @ projection_PK

    def _logits(self, images_MBP: Tensor, labels_MB: Tensor) -> Tensor:
        hidden_MBD = functional.leaky_relu(
            torch.baddbmm(self._bias_M1D, images_MBP, self._hidden_MPD), NEGATIVE_SLOPE
        )
        index_MBD = labels_MB[:, :, None].expand(-1, -1, hidden_MBD.shape[2])
        projection_MBD = self._score_M1D + self._class_MLD.gather(1, index_MBD)
        logits_MB: Tensor = (hidden_MBD * projection_MBD).sum(2)
        return logits_MB


class LinearTeachers:
    """A teacher's logit is <template of the class, image> + offset of the class.

    What a class's template learns from three images of it points where other teachers' templates
    point, so votes agree after a few steps. Its gradient with respect to a sample is a multiple of
    the template, and so is every projection of it: nothing of the size of all gradients is needed.
    No operation mixes two teachers: a template depends on its own shard and on samples.
    """

    def __init__(
        self,
        images_MSP: Tensor,
        labels_MS: Tensor,
        num_classes: int,
        learning_rate: float,
        randomness: np.random.Generator,
    ) -> None:
        """Keep the shards, as ``Teachers`` does; templates begin at zero."""
        self._images_MSP, self._labels_MS = images_MSP, labels_MS
        self._randomness = randomness
        count, _, pixels = images_MSP.shape
        self._templates_MLP = images_MSP.new_zeros(count, num_classes, pixels)
        self._offsets_ML = images_MSP.new_zeros(count, num_classes)
        parameters = [self._templates_MLP, self._offsets_ML]
        self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999))

    @torch.no_grad()
    def train(self, samples_BP: Tensor, labels_B: Tensor, batch_size: int) -> None:
        """Take one step of every teacher, on so many of its images against the samples.

        The logistic loss is convex in a template; its gradient is written out: of an image or
        sample x it is (D(x) - 1 for an image, D(x) for a sample) x, a mean over each.
        """
        images_MRP, classes_MR = draw_shard_batches(
            self._images_MSP, self._labels_MS, batch_size, self._randomness
        )
        real_MR = -torch.sigmoid(-self._logits(images_MRP, classes_MR)) / batch_size
        real_MLR = self._by_class(real_MR, classes_MR)
        fake_MB = torch.sigmoid(self._logits(samples_BP, labels_B)) / len(labels_B)
        fake_MLB = self._by_class(fake_MB, labels_B.expand(len(fake_MB), -1))
        self._templates_MLP.grad = torch.bmm(real_MLR, images_MRP) + fake_MLB @ samples_BP
        self._offsets_ML.grad = real_MLR.sum(2) + fake_MLB.sum(2)
        self._optimizer.step()

    @torch.no_grad()
    def projected_gradients(
        self, samples_BP: Tensor, labels_B: Tensor, projection_PK: Tensor
    ) -> Tensor:
        """Return (M, B, K): each teacher's gradient of -log D(sample), projected; private."""
        missed_MB = torch.sigmoid(-self._logits(samples_BP, labels_B))
        projected_MLK = self._templates_MLP @ projection_PK
        return -missed_MB[:, :, None] * projected_MLK[:, labels_B]

    def _logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (M, B) of images (B, P) that all teachers see, or (M, B, P), and their labels."""
        logits_MBL = images @ self._templates_MLP.mT + self._offsets_ML[:, None]
        index_MB1 = labels.expand(len(logits_MBL), -1)[:, :, None]
        return logits_MBL.gather(2, index_MB1)[:, :, 0]

    def _by_class(self, values_MB: Tensor, labels_MB: Tensor) -> Tensor:
        """Return (M, L, B): each value in the row of its class, and 0 in the others."""
        one_hot_MBL = functional.one_hot(labels_MB, self._offsets_ML.shape[1])
        return (one_hot_MBL * values_MB[:, :, None]).mT


def teachers_on_shards(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: GPATESettings,
    seeds: SeedStream,
) -> Teachers | LinearTeachers:
    """Deal the images to shards of one size at random, and set a teacher on each.

    Raises:
        ValueError: fewer images than teachers.
    """
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


BINS = 10  # Source: G-PATE's code, as is the next
THRESHOLD_SHARE = 0.5  # of the teachers


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


def train(
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

    Arguments are those of ``Method.train``; epsilon holds under replace-one of a record.

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
    teachers = teachers_on_shards(images_NCHW, labels_N, num_classes, settings, seeds)
    trainer, config = conditional_trainer(settings, images_NCHW, num_classes, seeds)
    draws, projections = seeds.generator("latents"), seeds.generator("projections")
    for step in range(settings.steps):
        latents_BZ, labels_B = draw_batch(
            settings.batch_size, config.latent_dim, num_classes, draws, device
        )
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
        progress((step + 1) / settings.steps)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, config),
        releases=settings.releases(noise_stddev),
        published_epsilon=None,
        published_accounting="depends on the votes, and so on the data: no guarantee",
    )
