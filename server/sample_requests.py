"""Requests of GS-WGAN: samples whose latents and labels follow from the run's seed and the round.

Shapes: N sample batches, B batch, Z latent, C channels, H and W image.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed_gswgan.config import Config
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.wire.messages import TrainRequest


@dataclass
class SampleRequests:
    """Build the request of each round.

    Attributes:
        config: of the run.
        experiment_id: part of every release's key.
        num_classes: of the data set.
        answered_samples: of the last request, those whose gradients are asked for,
            (B, C, H, W) in [0, 1].
    """

    config: Config
    experiment_id: str
    num_classes: int
    answered_samples: Tensor = field(default_factory=lambda: torch.empty(0))

    def inputs(self, server_round: int) -> tuple[Tensor, Tensor]:
        """Return latents_BZ and uniform labels_B of the samples to be answered."""
        return self._draw("latents", server_round, self.config.cohort.batch_size)

    def build(
        self, server_round: int, trainer: GeneratorTrainer, checkpoint_round: int
    ) -> TrainRequest:
        """Generate the samples of a round and return its request."""
        batches, size = self.config.cohort.critic_batches, self.config.cohort.batch_size
        latents_BZ, labels_B = self.inputs(server_round)
        critic_latents, critic_labels = self._draw("critic-latents", server_round, batches * size)
        self.answered_samples = trainer.samples(latents_BZ, labels_B)
        samples_BCHW = self.answered_samples.numpy()
        critic_samples_RCHW = trainer.samples(critic_latents, critic_labels).numpy()
        return TrainRequest(
            experiment_id=self.experiment_id,
            server_round=server_round,
            checkpoint_round=checkpoint_round,
            samples_BCHW=samples_BCHW,
            labels_B=labels_B.numpy(),
            critic_samples_NBCHW=critic_samples_RCHW.reshape(batches, *samples_BCHW.shape),
            critic_labels_NB=critic_labels.numpy().reshape(batches, size),
            clipping=self.config.sanitizer.clipping,
            clipping_bound=self.config.sanitizer.clipping_bound,
            noise_stddev=self.config.sanitizer.noise_stddev,
            dct_frequencies=self.config.sanitizer.dct_frequencies,
            uplink_codec=self.config.codec.uplink_codec,
        )

    def _draw(self, purpose: str, server_round: int, count: int) -> tuple[Tensor, Tensor]:
        randomness = SeedStream(self.config.run.seed).generator(purpose, server_round)
        generator = self.config.generator
        latents = draw_latents(count, generator.latent_dim, generator.latent_kind, randomness)
        return latents, draw_labels(count, self.num_classes, randomness)
