"""A FedAvg-GAN client's work: train the critic it was sent, and return by how much it moved.

Shapes: B batch, Z latent, P numbers in the critic's state vector.
"""

import numpy as np
import torch
from torch import nn

from fed_gswgan.critics.wgan_gp import train_critic
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.models.registry import to_state_vector
from fed_gswgan.training.generator_trainer import draw_labels, draw_latents
from fed_gswgan.training_config import CriticConfig, GeneratorConfig


def critic_update(
    critic: nn.Module,
    generator: nn.Module,
    shard: ClientDataset,
    num_classes: int,
    batch_size: int,
    critic_config: CriticConfig,
    generator_config: GeneratorConfig,
    randomness: np.random.Generator,
) -> np.ndarray:
    """Take the critic's steps by SGD against fresh samples; return float32 (P,), private.

    Args:
        critic: trained in place.
        generator: draws the samples; never trained here.
        shard: the client's images.
        num_classes: labels are uniform over them.
        batch_size: of every step.
        critic_config: number of steps, learning rate and penalties.
        generator_config: the latents'.
        randomness: of samples and training.

    Source: FedAvg-GAN, arXiv 1911.06679, algorithm 1; its loss is WGAN-GP's, as here.
    """
    before_P = to_state_vector(critic)
    steps, config = critic_config.critic_steps, generator_config
    count = steps * batch_size
    latents_BZ = draw_latents(count, config.latent_dim, config.latent_kind, randomness)
    labels_B = draw_labels(count, num_classes, randomness)
    with torch.no_grad():
        samples_BCHW = generator.eval()(latents_BZ, labels_B)
    optimizer = torch.optim.SGD(critic.parameters(), lr=critic_config.critic_learning_rate)
    samples_NBCHW = samples_BCHW.reshape(steps, batch_size, *samples_BCHW.shape[1:])
    labels_NB = labels_B.reshape(steps, batch_size)
    train_critic(critic, optimizer, shard, samples_NBCHW, labels_NB, critic_config, randomness)
    return np.asarray(to_state_vector(critic) - before_P)
