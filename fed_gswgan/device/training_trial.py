"""Whether this machine can train at all: asked before a round, since a failure in one costs budget.

A round in which training fails is answered with noise alone, and charged like any other: the reply
must not tell. So what would fail for everybody's data, a missing library or no room for temporary
files, has to come out earlier.
"""

from dataclasses import replace

import numpy as np
import torch

from fed_gswgan.config import Config
from fed_gswgan.critics.wgan_gp import critic_optimizer, sample_gradient, train_critic, warm_start
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.models.registry import build_critic


def try_training(config: Config, num_classes: int) -> None:
    """Start a critic, train it for a step on blank images, and throw it away.

    Raises:
        ValueError: that failed, and why.
    """
    once = replace(
        config.critic, critic_steps=1, warm_start_steps=min(config.critic.warm_start_steps, 1)
    )
    blank, labels = np.zeros((2, *IMAGE_SHAPE), np.float32), np.zeros(2, np.int64)
    shard, randomness = ClientDataset(("nobody",), blank, labels), np.random.default_rng(0)
    samples_BCHW, labels_B = torch.from_numpy(blank), torch.from_numpy(labels)
    try:
        critic = build_critic(once, DataSpec(IMAGE_SHAPE, num_classes), seed=0)
        optimizer = critic_optimizer(critic, once, config.adam)
        warm_start(critic, optimizer, shard, num_classes, once, config.adam, randomness)
        sample_batches = samples_BCHW[None], labels_B[None]
        train_critic(critic, optimizer, shard, *sample_batches, once, randomness)
        sample_gradient(critic, samples_BCHW, labels_B, once.critic_compute)
    except Exception as error:
        raise ValueError(
            f"a critic cannot be trained on this machine: {type(error).__name__}: {error}; until "
            "that is mended every round would be charged and answered with noise alone"
        ) from error
