"""What the cohort is asked in a round: samples drawn from the run's seed, round by round.

What was sent is kept until its round ends, for the generator may have moved on by then.

Shapes: N sample batches, B batch, Z latent, C channels, H and W image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fed_gswgan.config import Config
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.wire.messages import TrainRequest


@dataclass(frozen=True)
class SampleRequests:
    """Builds each round's request; latents and labels are kept as a seed.

    Attributes:
        config: of the run.
        experiment_id: part of every release's key.
        num_classes: of the data set.
        in_flight: by round: the samples to be answered, then those for the critics' steps alone,
            ((1 + N) * B, C, H, W); a round that is in it is asked with these very samples.
    """

    config: Config
    experiment_id: str
    num_classes: int
    in_flight: dict[int, Tensor]

    def inputs(self, server_round: int) -> tuple[Tensor, Tensor]:
        """Return latents_BZ and uniform labels_B of the samples to be answered."""
        return self._draw("latents", server_round, self.config.cohort.batch_size)

    def answered_samples(self, server_round: int) -> Tensor:
        """Return samples_BCHW of a round in flight, those to be answered."""
        return self.in_flight[server_round][: self.config.cohort.batch_size]

    def build(
        self, server_round: int, trainer: GeneratorTrainer, checkpoint_round: int
    ) -> TrainRequest:
        """Return the round's request, with samples that are generated unless they are in flight."""
        batches, size = self.config.cohort.critic_batches, self.config.cohort.batch_size
        latents_BZ, labels_B = self.inputs(server_round)
        critic_latents, critic_labels = self._draw("critic-latents", server_round, batches * size)
        if server_round not in self.in_flight:
            samples = trainer.samples(latents_BZ, labels_B)
            critic_samples = trainer.samples(critic_latents, critic_labels)
            self.in_flight[server_round] = torch.cat([samples, critic_samples])
        samples_BCHW = self.answered_samples(server_round).numpy()
        critic_samples_RCHW = self.in_flight[server_round][size:].numpy()
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
