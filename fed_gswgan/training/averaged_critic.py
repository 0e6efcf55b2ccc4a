"""The server's half of FedAvg-GAN: a critic moved by its clients, a generator trained against it.

Shapes: P numbers in the critic's state vector.
"""

from functools import partial

import numpy as np
from torch import nn

from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.models.registry import load_state_vector, to_state_vector
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training_config import AdamConfig, GeneratorConfig


class AveragedCriticTrainer(GeneratorTrainer):
    """A generator and the critic that all clients share."""

    def __init__(
        self, generator: nn.Module, critic: nn.Module, config: GeneratorConfig, adam: AdamConfig
    ) -> None:
        super().__init__(generator, config, adam)
        self.critic = critic.eval()

    def networks(self) -> dict[str, nn.Module]:
        """Return every network that a checkpoint must hold, by name."""
        return super().networks() | {"critic": self.critic}

    def move_critic(self, mean_update_P: np.ndarray, learning_rate: float) -> None:
        """Add learning rate x mean update to the critic."""
        load_state_vector(self.critic, to_state_vector(self.critic) + learning_rate * mean_update_P)

    def train_generator(
        self, steps: int, batch_size: int, num_classes: int, randomness: np.random.Generator
    ) -> float:
        """Take so many steps against the critic, which touches no data; return the last norm."""
        gradient_at = partial(sample_gradient, self.critic)
        return self.follow(gradient_at, steps, batch_size, num_classes, randomness)
