"""What centralised GS-WGAN is made of: as published, and smaller."""

from dataclasses import dataclass, field
from typing import Literal

from fed_gswgan.accounting.trust import CriticState, DeclaredRelease, SamplingMethod
from fed_gswgan.critics.wgan_gp import CriticSettings
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation
from fed_gswgan.validation import at_least

PIXELS = 28 * 28
RELATION = NeighboringRelation.REPLACE_ONE
SAMPLING = {
    CriticState.SNAPSHOT: SamplingMethod.FIXED_SIZE,
    CriticState.PERSISTENT: SamplingMethod.REVEALED,
}


@dataclass(frozen=True, kw_only=True)
class CentralizedGSWGANSettings:
    """How many critics on how much, and what a step is.

    Attributes:
        critics: shards, one critic each.
        steps: of the generator; a critic is drawn for each.
        batch_size: samples whose gradient a step releases.
        clipping: ``sample`` bounds each row, ``message`` all rows of a step together.
        clipping_bound: C.
        generator: network and optimizer.
        critic: network, optimizer, warm start, and what a participation starts from.
    """

    critics: int
    steps: int
    batch_size: int = 32
    clipping: Literal["sample", "message"] = "sample"
    clipping_bound: float = 1.0
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)

    def __post_init__(self) -> None:
        at_least(2, critics=self.critics)
        at_least(1, steps=self.steps)
        at_least(1, batch_size=self.batch_size)
        self.event(noise_stddev=1.0)  # which checks the clipping, at any noise

    def event(self, noise_stddev: float) -> Event:
        """Return what a step releases at this noise, in units of C."""
        return Event(
            rows=self.batch_size,
            numbers=PIXELS,
            bounded=self.clipping,
            clipping_bound=self.clipping_bound,
            noise_stddev=noise_stddev,
        )

    def releases(self, noise_stddev: float) -> tuple[DeclaredRelease, ...]:
        """Return what all steps release at this noise.

        Another record changes one shard, so one critic, arbitrarily; the step's rows move by
        2C sqrt(B) at most, or 2C where they are clipped together.
        """
        return (
            DeclaredRelease(
                what="sanitized gradients of one critic, drawn anew in each step",
                mu=self.event(noise_stddev).mu(RELATION),
                rounds=self.steps,
                relation=RELATION,
                sampling=SAMPLING[CriticState(self.critic.critic_state)],
                sampling_probability=1 / self.critics,
            ),
        )


SMALL = CentralizedGSWGANSettings(
    critics=100,
    steps=5000,
    batch_size=8,
    clipping="message",
    generator=GeneratorSettings(
        generator_width=16,
        generator_learning_rate=1e-3,
        ema_halflife_steps=50,
        adam_beta2=0.99,
    ),
    critic=CriticSettings(
        critic_width=128,
        class_embedding_stddev=1.0,
        critic_state="snapshot",
        critic_steps=1,
        warm_start_steps=15,
        adam_beta2=0.99,
    ),
)
"""Not quite four minutes on one core.

Under a true epsilon of 10 the noise decides, so steps are many, and cheap: few rows, whose number
cancels out of the signal over the noise, and one step of the critic. A hundred critics need less
than half the noise of twenty, and are what can be warm-started in the time.
"""

FULL = CentralizedGSWGANSettings(
    critics=1000,
    steps=20_000,
    generator=GeneratorSettings(
        generator="resnet",
        generator_width=64,
        generator_learning_rate=1e-4,
        ema_halflife_steps=693,  # a decay of 0.999
    ),
    critic=CriticSettings(
        critic="conv",
        critic_width=64,
        critic_state="snapshot",
        critic_steps=5,
        critic_learning_rate=1e-4,
        warm_start_steps=2000,
    ),
)
"""The published critics, steps, batch and optimizers, for an accelerator with some 16 GB free.

Sample clipping as published; the critics forget, as no other state has a proven amplification.
"""
