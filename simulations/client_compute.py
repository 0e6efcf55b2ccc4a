"""How much arithmetic a participation takes of a client, counted operation by operation."""

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fed_gswgan.config import Config
from fed_gswgan.critics.wgan_gp import critic_optimizer, train_critic
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.models.registry import build_critic, build_generator
from fed_gswgan.training.critic_update import critic_update


def participation_flops(config: Config, num_classes: int) -> int:
    """Return the floating point operations of one participation, products of matrices alone.

    One participation is run on images and samples of noise: how many operations it takes does not
    depend on what is in them. Neither a warm start nor the gradient that GS-WGAN sends, less than
    another critic step, is in it.

    Args:
        config: of the run.
        num_classes: of the data set.
    """
    batch, classes = config.cohort.batch_size, num_classes
    spec = DataSpec(IMAGE_SHAPE, classes)
    randomness = np.random.default_rng(0)
    images = randomness.random((4 * classes, *IMAGE_SHAPE), dtype=np.float32)
    shard = ClientDataset(("noise",), images, np.arange(4 * classes) % classes)
    critic = build_critic(config.critic, spec, seed=0)
    with FlopCounterMode(display=False) as counter:
        if config.algorithm.algorithm == "fedavg-gan":
            generator = build_generator(config.generator, spec, seed=0)
            critic_update(
                critic, generator, shard, classes, batch, config.critic, config.generator,
                randomness,
            )  # fmt: skip
        else:
            batches = max(1, config.cohort.critic_batches)
            samples_NBCHW = torch.rand(batches, batch, *IMAGE_SHAPE)
            labels_NB = torch.arange(batches * batch).view(batches, batch) % classes
            optimizer = critic_optimizer(critic, config.critic, config.adam)
            train_critic(
                critic, optimizer, shard, samples_NBCHW, labels_NB, config.critic, randomness
            )
    return int(counter.get_total_flops())
