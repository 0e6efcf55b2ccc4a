"""A critic's training before its first round, against a generator that is then thrown away.

Nothing leaves the client, so it costs no privacy; what it costs is the client's time.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.models.build import build_generator
from fed_gswgan.training.critic_training import train_critic
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.training.sample_gradient import sample_gradient
from fed_gswgan.training_config import AdamConfig, CriticConfig, GeneratorConfig

BATCH_SIZE = 32
CRITIC_STEPS = 5  # a generator step, as in WGAN-GP


def warm_start(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    shard: WriterShard,
    num_classes: int,
    config: CriticConfig,
    adam: AdamConfig,
    randomness: np.random.Generator,
) -> None:
    """Train critic and a local slim generator for ``config.warm_start_steps`` generator steps.

    Source: GS-WGAN, arXiv 2006.08265, which warm-starts every critic on its own data.
    """
    if config.warm_start_steps == 0:
        return
    local, local_critic = GeneratorConfig(), replace(config, critic_steps=CRITIC_STEPS)
    seed = int(randomness.integers(2**31))
    trainer = GeneratorTrainer(build_generator(local, num_classes, seed), local, adam)
    for _ in range(config.warm_start_steps):
        latents_BZ = draw_latents(BATCH_SIZE, local.latent_dim, local.latent_kind, randomness)
        labels_B = draw_labels(BATCH_SIZE, num_classes, randomness)
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        train_critic(
            critic, optimizer, shard, samples_BCHW[None], labels_B[None], local_critic, randomness
        )
        gradients_BCHW = sample_gradient(critic, samples_BCHW, labels_B, config.critic_compute)
        if torch.isfinite(gradients_BCHW).all():
            trainer.step(latents_BZ, labels_B, gradients_BCHW)
