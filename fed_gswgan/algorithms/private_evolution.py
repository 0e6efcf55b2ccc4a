"""Private evolution: clients vote for the public images that are most like their own.

The pool's images of a class are grouped into cells, by k-means in public features. Each client
answers with the number of its images in each cell. The server weights the images of the pool by the
mean, and fits the generator to the weighted pool. It is the simplest algorithm: no vectors leave.

Shapes: L classes, V cells of a class, M pool images of a class, D features, N images.

Source: Lin et al., arXiv 2305.15560 (votes for the nearest generated image); federated: PrE-Text,
    arXiv 2406.02958. Cells of many images, and one release, are this project's.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms.base import (
    ClientView,
    Mean,
    Query,
    ReleaseShape,
    Request,
    Step,
    Update,
)
from fed_gswgan.algorithms.solved import SolvedAnswers, SolvedQuestions, tensor_of
from fed_gswgan.critics.cramer import LONGEST
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field import rule
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.priors.prior import NONE
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Count

DOUBT = 1.0  # noise of a vote that the pool's own share of a cell is worth


class Settings(AdaptationSettings):
    """Keys of private evolution, beside the shared ones and those of prior and features."""

    cells: Count = 20
    """of a class, that clients vote for"""


def keeps_state(settings: Settings) -> bool:
    """Return False: a client remembers nothing."""
    return False


resolved = rule.resolved


class Client(SolvedAnswers):
    """Answers with how many of its images lie in each cell."""

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        super().__init__(settings, spec)
        self._cells = settings.cells

    def release(self, server_round: int) -> ReleaseShape:
        """Return a row a class with a number a cell, bounded as a whole."""
        return ReleaseShape(self.classes, self._cells, bounded="message")

    def check(self, request: Request) -> None:
        """Require centres of this shape, in the features that this client has."""
        self.require(request, {"centres": (self.classes, self._cells, self.size)}, {"features"})

    def update(self, request: Request, client: ClientView) -> Update:
        """Count the client's images in each cell; longer than every bound, which normalises it."""
        centres_LVD = tensor_of(request, "centres")
        features_ND = self.features_of(client.dataset.images)
        votes_LV = np.zeros((self.classes, self._cells))
        for label, features_D in zip(client.dataset.labels, features_ND, strict=True):
            nearest = (centres_LVD[label] - features_D).square().sum(1).argmin()
            votes_LV[label, int(nearest)] += 1
        return Update(votes_LV * LONGEST)


class Cells(NamedTuple):
    """Groups of the pool's images."""

    centres_LVD: Tensor
    cell_of_LM: Tensor
    shares_LV: Tensor


class Server(SolvedQuestions):
    """Weights the pool by the votes, and fits the generator to it."""

    def __init__(self, settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> None:
        if settings.prior == NONE:
            raise ValueError(
                f"prior={NONE} must be a prior under algorithm=private-evolution: clients vote for "
                "its images; set prior=strokes or folder:PATH"
            )
        super().__init__(Adaptation(settings, spec, seeds, rounds))
        self._settings, self._seeds = settings, seeds
        self._votes_LV = torch.zeros(spec.num_classes, settings.cells, dtype=torch.float64)
        self._variance = torch.zeros((), dtype=torch.float64)

    @cached_property
    def cells(self) -> Cells:
        """The pool's images in cells, by k-means of their features."""
        from sklearn.cluster import KMeans

        centres, cells = [], []
        for label, features_MD in enumerate(self.adaptation.public_pool.features_LMD):
            seed = self._seeds.torch_seed("cells", client_id=str(label)) % 2**32
            means = KMeans(self._settings.cells, n_init=1, random_state=seed)
            cells.append(torch.from_numpy(means.fit_predict(features_MD.numpy())).long())
            centres.append(torch.from_numpy(means.cluster_centers_).half())
        cell_of_LM = torch.stack(cells)
        numbers = torch.stack([torch.bincount(c, minlength=self._settings.cells) for c in cells])
        return Cells(torch.stack(centres), cell_of_LM, numbers / cell_of_LM.shape[1])

    def request(self, server_round: int) -> Query:
        """Send the cells' centres."""
        return Query(
            tensors={"centres": self.cells.centres_LVD.numpy()},
            scalars={"features": self.adaptation.features.hash()},
        )

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Add the mean votes to those of earlier rounds; weight the pool and fit the generator.

        A class's votes are taken at 0 or above, and each cell's share of the pool counts as
        ``DOUBT`` standard deviations of the noise.
        """
        self._votes_LV += torch.from_numpy(mean.update_RN)
        self._variance += mean.noise_stddev**2
        _, cell_of_LM, shares_LV = self.cells
        doubt_LV = DOUBT * self._variance.sqrt() * self._settings.cells * shares_LV
        votes_LV = self._votes_LV.clamp(min=0) + doubt_LV.clamp(min=1e-12)
        votes_LV = votes_LV / votes_LV.sum(1, keepdim=True)
        each_LV = votes_LV / (shares_LV * cell_of_LM.shape[1]).clamp(min=1)
        weights_LM = each_LV.gather(1, cell_of_LM)
        self.adaptation.weigh((weights_LM / weights_LM.sum(1, keepdim=True)).log().float())
        every_L = torch.ones(self.adaptation.spec.num_classes)
        norm = self.adaptation.fit(server_round, every_L, every_L)
        in_use = self.adaptation.images_in_use
        return Step({"generator_gradient_norm": norm, "pool_images_in_use": in_use})

    def state_dict(self) -> dict[str, Tensor]:
        """Return generator, optimizer, weights and votes."""
        votes = {"votes/sum": self._votes_LV, "votes/variance": self._variance}
        return super().state_dict() | {n: t.clone() for n, t in votes.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        super().load_state_dict(state)
        self._votes_LV, self._variance = state["votes/sum"], state["votes/variance"]
