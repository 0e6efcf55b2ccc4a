"""An algorithm of one's own in one file: the mean image of each class, federated and private.

Usage: ``fed-gswgan run --set algorithm=examples.new_algorithm:MeanImages --set rounds=5``
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms import base
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Settings as BaseSettings
from fed_gswgan.settings import Share


class Settings(BaseSettings):
    """Its one key, given in ``algorithm-settings``."""

    momentum: Share = 0.5
    """of the server's estimate"""


class Client:
    """Releases a row a class: the mean of the client's images of the class, of length 1 at most."""

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        self._spec = spec

    def release(self, server_round: int) -> base.ReleaseShape:
        """Return a row a class, and one extra number: whether the client answered."""
        numbers = int(np.prod(self._spec.image_shape))
        return base.ReleaseShape(self._spec.num_classes, numbers, extra=1)

    def check(self, request: base.Request) -> None:
        """Refuse anything but an empty request."""
        if request.tensors or request.scalars:
            raise ValueError("tensors and scalars must be empty")

    def update(self, request: base.Request, client: base.ClientView) -> base.Update:
        """Return the mean image of each class, in units of its length."""
        data, rows = client.dataset, []
        for label in range(self._spec.num_classes):
            mine = data.images[data.labels == label].reshape(-1, self.release(0).numbers)
            mean = mine.mean(axis=0) if len(mine) else np.zeros(self.release(0).numbers)
            rows.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
        return base.Update(np.array(rows), np.ones(1))


class Server:
    """Averages the noisy means over rounds; samples are the means themselves."""

    def __init__(self, settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> None:
        self._momentum, self._shape = settings.momentum, spec.image_shape
        self.means_LP = torch.zeros(spec.num_classes, int(np.prod(spec.image_shape)))

    def request(self, server_round: int) -> base.Query:
        """Ask for nothing in particular."""
        return base.Query()

    def step(self, server_round: int, query: base.Query, mean: base.Mean) -> base.Step:
        """Move the estimate; the extra number says what share of the bound a client used."""
        found = torch.from_numpy(mean.update_RN / max(float(mean.extra_E[0]), 0.1)).float()
        weight = 1.0 if server_round == 1 else 1 - self._momentum
        self.means_LP.lerp_(found, weight)
        return base.Step({"noise_stddev": mean.noise_stddev})

    def finish(self) -> dict[str, float]:
        """Do nothing."""
        return {}

    def sampler(self) -> base.Sampler:
        """Return each class's mean, scaled to [0, 1]."""
        means_LP = self.means_LP.clamp(min=0)
        means_LP = means_LP / means_LP.amax(dim=1, keepdim=True).clamp(min=1e-9)
        return lambda labels_B, seed: means_LP[labels_B].view(-1, *self._shape)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the estimate."""
        return {"means": self.means_LP.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an estimate."""
        self.means_LP = state["means"].clone()


class MeanImages:
    """The four members that an algorithm has."""

    Settings, Client, Server = Settings, Client, Server

    @staticmethod
    def keeps_state(settings: object) -> bool:
        """Return False: a client remembers nothing."""
        return False
