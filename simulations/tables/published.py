"""Published figures: the rows of the paper's tables, and the size of FedAvg-GAN's networks.

They fill a column of their own and are never mixed with what is measured here.

Source: GS-WGAN, arXiv 2006.08265, tables 1 and 4. Its epsilon of 10 is that of its own accounting,
under which the true epsilons of the rows differ; ``docs/privacy.md`` corrects it. FedAvg-GAN,
arXiv 1911.06679, with the networks that its code builds for EMNIST: every layer has its weights
and one offset for each output channel. No run here trains them.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

PUBLISHED_TABLE1: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "mnist": {
        "real": {"IS": 9.80, "FID": 1.02, "MLP": 0.98, "CNN": 0.99, "Avg": 0.88},
        "gs-wgan": {
            "IS": 9.23, "FID": 61.34, "MLP": 0.79, "CNN": 0.80, "Avg": 0.60, "Calibrated": 0.69,
        },
    },
    "fashion-mnist": {
        "real": {"IS": 8.98, "FID": 1.49, "MLP": 0.88, "CNN": 0.91, "Avg": 0.79},
        "gs-wgan": {
            "IS": 5.32, "FID": 131.34, "MLP": 0.65, "CNN": 0.65, "Avg": 0.53, "Calibrated": 0.67,
        },
    },
}  # fmt: skip

# Inception features, all 62 classes, delta 1.15e-3; epsilon and bytes as the paper counts them.
PUBLISHED_TABLE4: Mapping[str, Mapping[str, float]] = {
    "gs-wgan": {"IS": 11.25, "FID": 60.76, "epsilon": 5.99e2, "bytes": 1.50e5},
    "fedavg-gan": {"IS": 10.88, "FID": 218.24, "epsilon": 9.99e6, "bytes": 3.94e7},
}


class ModelBytes(NamedTuple):
    """Payload of one participation in float32."""

    downlink: int
    uplink: int


def published_bytes() -> ModelBytes:
    """Return what a participation sends: generator and critic down, the critic's update up.

    The generator is 128-1024-7x7x256-14x14x64-28x28x32-28x28x1, the critic
    28x28x1-14x14x64-7x7x128-1024-1.
    """
    generator = _parameters(
        (128, 1024, 1), (1024, 7 * 7 * 256, 1), (256, 64, 16), (64, 32, 16), (32, 1, 16)
    )
    critic = _parameters((1, 64, 16), (64, 128, 16), (7 * 7 * 128, 1024, 1), (1024, 1, 1))
    return ModelBytes(downlink=4 * (generator + critic), uplink=4 * critic)


def _parameters(*layers: tuple[int, int, int]) -> int:
    """Count parameters of layers, each (input channels, output channels, weights of a pair)."""
    return sum(math.prod(layer) + layer[1] for layer in layers)
