"""A critic of one's own in one file: the pull towards the mean image of the client's class.

Usage: ``fed-gswgan run --set critic=examples.new_critic:MeanCritic --set rounds=5``
"""

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms.base import ClientView
from fed_gswgan.data.client_dataset import DataSpec

Means = Tensor  # (L, C, H, W), a mean image a class


class MeanCritic:
    """Scores a sample by its squared distance from the client's mean image of the class."""

    def __init__(self, settings: object, spec: DataSpec) -> None:
        self._spec = spec

    def fit(
        self, client: ClientView, samples_KBCHW: Tensor, labels_KB: Tensor, server_round: int
    ) -> tuple[Means, dict[str, np.ndarray]]:
        """Return the means, and the state to remember: here the number of rounds so far."""
        data = client.dataset
        overall = data.images.mean(axis=0)
        means = [
            data.images[data.labels == label].mean(axis=0)
            if (data.labels == label).any()
            else overall
            for label in range(self._spec.num_classes)
        ]
        rounds = int(client.state["rounds"][0]) if client.state else 0
        return torch.from_numpy(np.array(means)), {"rounds": np.array([rounds + 1])}

    def sample_gradient(self, critic: Means, samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the gradient of half the squared distance, a row a sample; the guard bounds it."""
        return samples_BCHW - critic[labels_B]
