"""FedAvg-GAN as a Flower Strategy: models out, clipped critic updates in, noise added here.

The clients trust this server: what reaches it has no noise, so against it they have no protection.
The round itself is ``RoundStrategy.train_round``.

P: numbers in the critic's state vector.
"""

import logging
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fed_gswgan.config import Config
from fed_gswgan.models.registry import to_state_vector
from fed_gswgan.privacy.clipped_update import update_event
from fed_gswgan.privacy.noise_source import named_noise_source
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from fed_gswgan.wire.message_types import UPDATE
from fed_gswgan.wire.record_codec import decode_update_reply, encode_update_request
from fed_gswgan.wire.update_messages import UpdateRequest
from server.reply_reading import Replies
from server.round_strategy import RoundStrategy, Step

logger = logging.getLogger(__name__)


class FedAvgGanStrategy(RoundStrategy):
    """Clients train the shared critic; the server averages it under noise and trains the generator.

    Args:
        config: of the run.
        trainer: generator and critic.
        shared: the other arguments of ``RoundStrategy``.

    Source: Augenstein et al., arXiv 1911.06679, algorithm 1.
    """

    message_type = UPDATE
    trainer: AveragedCriticTrainer

    def __init__(self, *, config: Config, trainer: AveragedCriticTrainer, **shared: Any) -> None:
        event = update_event(config.sanitizer.clipping_bound, config.sanitizer.noise_stddev)
        size = len(to_state_vector(trainer.critic))
        super().__init__(config=config, trainer=trainer, event=event, reply_size=size, **shared)

    def build_records(self, server_round: int) -> RecordDict:
        """Encode generator and critic as they are."""
        request = UpdateRequest(
            experiment_id=self.experiment_id,
            server_round=server_round,
            generator_P=to_state_vector(self.trainer.generator),
            critic_Q=to_state_vector(self.trainer.critic),
            clipping_bound=self.config.sanitizer.clipping_bound,
            noise_stddev=self.config.sanitizer.noise_stddev,
        )
        return encode_update_request(request)

    def decode(self, records: RecordDict, server_round: int) -> np.ndarray:
        """Return the clipped update of a reply, float32 (P,)."""
        reply = decode_update_reply(records, server_round, self.reply_size, self.event)
        return reply.update.values_P

    def step_generator(self, server_round: int, replies: Replies) -> Step:
        """Move the critic by the noisy mean update, then train the generator."""
        cohort = self.config.cohort
        sum_P = np.sum([replies.values[c] for c in sorted(replies.values)], axis=0, dtype=float)
        noise_source = named_noise_source(
            self.config.sanitizer.noise_source, self.seeds.generator("noise", server_round)
        )
        stddev = self.event.noise_stddev * self.event.clipping_bound
        noisy_P = noise_source.add_noise(sum_P, stddev)
        # The intended size, not how many answered: a client's weight must not depend on others.
        mean_P = (noisy_P / cohort.cohort_size).astype(np.float32)
        self.trainer.move_critic(mean_P, self.config.algorithm.server_learning_rate)
        norm = self.trainer.train_generator(
            self.config.algorithm.generator_steps,
            cohort.batch_size,
            self.num_classes,
            self.seeds.generator("generator-training", server_round),
        )
        return Step(True, float(np.linalg.norm(mean_P)), norm)

    def summary(self) -> None:
        """Log the settings that decide privacy."""
        sanitizer, cohort = self.config.sanitizer, self.config.cohort
        logger.info(
            "FedAvg-GAN: %d clients, cohort %d (%s), updates clipped to %g, noise %g added by the "
            "server, which the clients trust",
            len(self.nodes), cohort.cohort_size, cohort.sampling_method, sanitizer.clipping_bound,
            sanitizer.noise_stddev,
        )  # fmt: skip
