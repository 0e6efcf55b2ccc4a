"""The private work of one participation: train a critic, then differentiate what it says.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.training.critic_training import train_critic
from fed_gswgan.training.sample_gradient import sample_gradient
from fed_gswgan.training_config import CriticConfig

Outcome = Tensor | Exception  # the sample gradient, or what was raised in its place


@dataclass(frozen=True, eq=False, repr=False)
class CriticTask:
    """Everything that the work needs; private, for it holds the client's images.

    Attributes:
        critic: trained in place.
        optimizer: of the critic's parameters; its moments advance.
        shard: the client's images; never changed.
        samples_NBCHW: what the steps go round, in [0, 1].
        labels_NB: their labels.
        samples_BCHW: whose gradient is the result, in [0, 1].
        labels_B: their labels.
        config: number of steps, penalties, and what the layers compute in.
        randomness: draws the images and the points of the gradient penalty.
    """

    critic: nn.Module
    optimizer: torch.optim.Adam
    shard: WriterShard
    samples_NBCHW: Tensor
    labels_NB: Tensor
    samples_BCHW: Tensor
    labels_B: Tensor
    config: CriticConfig
    randomness: np.random.Generator

    def __repr__(self) -> str:
        return "CriticTask(private)"


def carry_out(task: CriticTask) -> Tensor:
    """Train the critic and return the sample gradient, of the samples' shape; private."""
    train_critic(
        task.critic,
        task.optimizer,
        task.shard,
        task.samples_NBCHW,
        task.labels_NB,
        task.config,
        task.randomness,
    )
    compute = task.config.critic_compute
    return sample_gradient(task.critic, task.samples_BCHW, task.labels_B, compute)


def carry_out_each(tasks: Sequence[CriticTask]) -> list[Outcome]:
    """Carry out one task after the other; none depends on another's failure."""
    return [_outcome(task) for task in tasks]


def _outcome(task: CriticTask) -> Outcome:
    try:
        return carry_out(task)
    except Exception as error:
        return error
