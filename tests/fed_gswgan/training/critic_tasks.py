"""Tasks of made-up clients, each time anew: the same client has the same images and draws.

They are small, so that hardly any feature is so near to zero that rounding decides its slope.
"""

import numpy as np
import torch

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.models.build import build_critic
from fed_gswgan.training.critic_task import CriticTask, carry_out
from fed_gswgan.training.critic_training import critic_optimizer
from fed_gswgan.training_config import AdamConfig, CriticConfig

CLASSES = 5
WIDTHS = {"mlp": 24, "conv": 3}


def shard_of(client):
    """Return images of a client, of whom every other lacks two of the classes."""
    randomness = np.random.default_rng(client)
    images = (randomness.random((12, 1, 28, 28)) > 0.8).astype(np.float32)
    return WriterShard((f"f{client}",), images, np.arange(12) % (CLASSES - 2 * (client % 2)))


def task_of(
    client, kind="mlp", rounds_before=0, shard=None, batches=2, size=4, classes=CLASSES, **settings
):
    """Return a client's task after it has carried out so many before."""
    settings = {"critic_steps": 3, "critic_width": WIDTHS[kind]} | settings
    config = CriticConfig(critic=kind, **settings)
    critic = build_critic(config, classes, seed=client)
    optimizer = critic_optimizer(critic, config, AdamConfig())

    def task(server_round, shard):
        draws = torch.Generator().manual_seed(server_round)
        samples = torch.rand(batches + 1, size, 1, 28, 28, generator=draws)
        labels = torch.randint(CLASSES, (batches + 1, size), generator=draws)
        randomness = np.random.default_rng((client, server_round))
        asked = samples[:-1], labels[:-1], samples[-1], labels[-1]
        return CriticTask(critic, optimizer, shard, *asked, config, randomness)

    for server_round in range(rounds_before):
        carry_out(task(server_round, shard_of(client)))
    return task(100, shard or shard_of(client))
