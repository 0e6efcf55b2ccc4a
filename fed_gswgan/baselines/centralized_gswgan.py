"""Centralised GS-WGAN: many critics on disjoint shards of one data set, one of them a step.

Shapes: N images, B batch, C channels, H and W image.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import (
    CriticState,
    DeclaredRelease,
    SamplingMethod,
    published_epsilon,
)
from fed_gswgan.baselines.training import OnDevice, TrainedBaseline, sampler_on_labels_device
from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    sample_gradient,
    train_critic,
    warm_start,
)
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec, image_shape_of
from fed_gswgan.models.registry import (
    GeneratorSettings,
    build_critic,
    build_generator,
)
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, grid_step, privatize
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, one_of, positive

NO_NUMBERS = np.empty(0)
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
        one_of(("sample", "message"), clipping=self.clipping)
        positive(clipping_bound=self.clipping_bound)

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
        generator_width=16, generator_learning_rate=1e-3, ema_halflife_steps=50, adam_beta2=0.99
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


def disjoint_shards(
    images_NCHW: Tensor, labels_N: Tensor, count: int, randomness: np.random.Generator
) -> tuple[ClientDataset, ...]:
    """Deal the images to ``count`` shards at random, of sizes that differ by one at most.

    Raises:
        ValueError: fewer images than shards.
    """
    if len(labels_N) < count:
        raise ValueError(f"critics={count} must be at most the {len(labels_N)} training images")
    images, labels = images_NCHW.cpu().numpy(), labels_N.cpu().numpy()
    return tuple(
        ClientDataset(writer_ids=(f"shard {index}",), images=images[part], labels=labels[part])
        for index, part in enumerate(np.array_split(randomness.permutation(len(labels)), count))
    )


class ShardCritics:
    """Warm-started on their shards, trained and asked one at a time."""

    def __init__(
        self,
        shards: tuple[ClientDataset, ...],
        num_classes: int,
        settings: CentralizedGSWGANSettings,
        device: torch.device,
        seeds: SeedStream,
        progress: Callable[[int], None],
    ) -> None:
        self._shards, self._settings, self._seeds = shards, settings, seeds
        config, self._states = settings.critic, []
        for index, shard in enumerate(shards):
            name = f"critic {index}"
            spec = DataSpec(image_shape_of(shard.images), num_classes)
            network = build_critic(config, spec, seeds.torch_seed("critic", client_id=name))
            # As it is on the CPU, where the gradient of a critic's loss has a closed form.
            critic = network if device.type == "cpu" else OnDevice(network, device)
            optimizer = critic_optimizer(critic, config)
            randomness = seeds.generator("warm start", client_id=name)
            warm_start(critic, optimizer, shard, num_classes, config, randomness)
            self._states.append((critic, optimizer))
            progress(index + 1)

    def gradients(
        self, index: int, samples_BCHW: Tensor, labels_B: Tensor, step: int
    ) -> np.ndarray:
        """Train a critic on a step's samples and return their gradients, private."""
        config = self._settings.critic
        state = self._states[index]
        if config.critic_state == "snapshot":
            state = copy.deepcopy(state)  # together: the optimizer holds the critic's parameters
        critic, optimizer = state
        randomness = self._seeds.generator("critic training", step)
        shard, samples, labels = self._shards[index], samples_BCHW[None], labels_B[None]
        train_critic(critic, optimizer, shard, samples, labels, config, randomness)
        return sample_gradient(critic, samples_BCHW, labels_B).numpy()


PUBLISHED = (
    "Rényi accounting of steps x rows releases, each row sampled by itself (arXiv 2006.08265)"
)


def train(
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

    Arguments are those of ``Method.train``; epsilon holds under replace-one of a record.

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
        released = privatize(rows_BP, NO_NUMBERS, event, noise).reshape(gradients_BCHW.shape)
        released_BCHW = (released * grid_step(event)).astype(np.float32)
        trainer.step(latents_BZ, labels_B, torch.from_numpy(released_BCHW))
        progress((settings.critics + step + 1) / total)
    return TrainedBaseline(
        sampler=sampler_on_labels_device(trainer.ema_generator, settings.generator),
        releases=settings.releases(event.noise_stddev),
        published_epsilon=published_epsilon(event, 1 / settings.critics, settings.steps, delta),
        published_accounting=PUBLISHED,
    )
