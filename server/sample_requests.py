"""What the cohort is asked in a round: samples drawn from the run's seed, round by round.

Shapes: N sample batches, B batch, Z latent, C channels, H and W image.
"""

from dataclasses import dataclass

from torch import Tensor

from fed_gswgan.config import Config
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.wire.messages import TrainRequest


@dataclass(frozen=True)
class SampleRequests:
    """Builds each round's request; what is kept of it is a seed, not an autograd graph.

    Attributes:
        config: of the run.
        experiment_id: part of every release's key.
        num_classes: of the data set.
    """

    config: Config
    experiment_id: str
    num_classes: int

    def inputs(self, server_round: int) -> tuple[Tensor, Tensor]:
        """Return latents_BZ and uniform labels_B of the samples to be answered."""
        return self._draw("latents", server_round, self.config.cohort.batch_size)

    def build(
        self, server_round: int, trainer: GeneratorTrainer, checkpoint_round: int
    ) -> TrainRequest:
        """Generate the samples to be answered, and those for the critics' steps alone."""
        batches, size = self.config.cohort.critic_batches, self.config.cohort.batch_size
        latents_BZ, labels_B = self.inputs(server_round)
        critic_latents, critic_labels = self._draw("critic-latents", server_round, batches * size)
        samples = trainer.samples(latents_BZ, labels_B).numpy()
        critic_samples = trainer.samples(critic_latents, critic_labels).numpy()
        return TrainRequest(
            experiment_id=self.experiment_id,
            server_round=server_round,
            checkpoint_round=checkpoint_round,
            samples_BCHW=samples,
            labels_B=labels_B.numpy(),
            critic_samples_NBCHW=critic_samples.reshape(batches, *samples.shape),
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
