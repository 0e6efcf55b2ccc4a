"""Many critics, each on its own shard of one data set.

Shapes: N images, B batch, C channels, H and W image.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.baselines.centralized_gswgan_settings import CentralizedGSWGANSettings
from fed_gswgan.baselines.on_device import OnDevice
from fed_gswgan.critics.wgan_gp import critic_optimizer, sample_gradient, train_critic, warm_start
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec, image_shape_of
from fed_gswgan.models.registry import build_critic
from fed_gswgan.seeding import SeedStream


def disjoint_shards(
    images_NCHW: Tensor, labels_N: Tensor, count: int, randomness: np.random.Generator
) -> tuple[ClientDataset, ...]:
    """Deal the images to ``count`` shards at random, of sizes that differ by one at most.

    Raises:
        ValueError: fewer images than shards.
    """
    if len(labels_N) < count:
        raise ValueError(f"critics={count} must be at most the {len(labels_N)} training images")
    images, labels = images_NCHW.cpu().numpy(), labels_N.cpu().numpy()
    return tuple(
        ClientDataset(writer_ids=(f"shard {index}",), images=images[part], labels=labels[part])
        for index, part in enumerate(np.array_split(randomness.permutation(len(labels)), count))
    )


class ShardCritics:
    """Warm-started on their shards, trained and asked one at a time."""

    def __init__(
        self,
        shards: tuple[ClientDataset, ...],
        num_classes: int,
        settings: CentralizedGSWGANSettings,
        device: torch.device,
        seeds: SeedStream,
        progress: Callable[[int], None],
    ) -> None:
        self._shards, self._settings, self._seeds = shards, settings, seeds
        config, self._states = settings.critic, []
        for index, shard in enumerate(shards):
            name = f"critic {index}"
            spec = DataSpec(image_shape_of(shard.images), num_classes)
            network = build_critic(config, spec, seeds.torch_seed("critic", client_id=name))
            # As it is on the CPU, where the gradient of a critic's loss has a closed form.
            critic = network if device.type == "cpu" else OnDevice(network, device)
            optimizer = critic_optimizer(critic, config)
            randomness = seeds.generator("warm start", client_id=name)
            warm_start(critic, optimizer, shard, num_classes, config, randomness)
            self._states.append((critic, optimizer))
            progress(index + 1)

    def gradients(
        self, index: int, samples_BCHW: Tensor, labels_B: Tensor, step: int
    ) -> np.ndarray:
        """Train a critic on a step's samples and return their gradients, private."""
        config = self._settings.critic
        state = self._states[index]
        if config.critic_state == "snapshot":
            state = copy.deepcopy(state)  # together: the optimizer holds the critic's parameters
        critic, optimizer = state
        randomness = self._seeds.generator("critic training", step)
        shard, samples, labels = self._shards[index], samples_BCHW[None], labels_B[None]
        train_critic(critic, optimizer, shard, samples, labels, config, randomness)
        return sample_gradient(critic, samples_BCHW, labels_B).numpy()
