"""What G-PATE is made of, and what its votes release.

A record lies in the shard of one teacher. Another record changes that teacher in any way, and all
others not at all, so in each query, one coordinate of one sample's gradient, it moves one vote from
one bin to another: two counts by 1, sqrt(2) in L2, and the largest count by 1. What a query
releases is computed from counts + N(0, s2^2) and from the largest count + N(0, s1^2); it is
Gaussian with mu^2 = 2 / s2^2 + 1 / s1^2 at most, whatever was released before and whether or not
the votes pass the threshold. The mu^2 of all queries add up. No votes enter this: epsilon is known
before training.
"""

import math
from dataclasses import dataclass

from fed_gswgan.accounting.trust import DeclaredRelease
from fed_gswgan.baselines.conditional_generators import GENERATORS
from fed_gswgan.models.registry import AdamSettings
from fed_gswgan.privacy.mechanism import NeighboringRelation
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
