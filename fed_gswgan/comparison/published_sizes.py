"""FedAvg-GAN's networks at their published size, for every statement about its bytes.

No run here trains them: on two cores both algorithms share a small generator and critic.

Source: Augenstein et al., arXiv 1911.06679, as their code builds the networks for EMNIST: every
layer has its weights and one offset for each output channel.
"""

import math
from typing import NamedTuple

FLOAT32_BYTES = 4
PUBLISHED_LATENT_DIM = 128
# Input channels, output channels, kernel.
_CRITIC = ((1, 64, 16), (64, 128, 16), (7 * 7 * 128, 1024, 1), (1024, 1, 1))


class ModelBytes(NamedTuple):
    """Payload of one participation in float32."""

    downlink: int
    uplink: int


def published_generator_parameters(latent_dim: int = PUBLISHED_LATENT_DIM) -> int:
    """Return the number of parameters of latent-1024-7x7x256-14x14x64-28x28x32-28x28x1."""
    return _parameters(
        (latent_dim, 1024, 1), (1024, 7 * 7 * 256, 1), (256, 64, 16), (64, 32, 16), (32, 1, 16)
    )


def published_critic_parameters() -> int:
    """Return the number of parameters of 28x28x1-14x14x64-7x7x128-1024-1."""
    return _parameters(*_CRITIC)


def published_bytes() -> ModelBytes:
    """Return what a participation sends: generator and critic down, the critic's update up."""
    generator, critic = published_generator_parameters(), published_critic_parameters()
    return ModelBytes(downlink=FLOAT32_BYTES * (generator + critic), uplink=FLOAT32_BYTES * critic)


def _parameters(*layers: tuple[int, int, int]) -> int:
    return sum(math.prod(layer) + layer[1] for layer in layers)
