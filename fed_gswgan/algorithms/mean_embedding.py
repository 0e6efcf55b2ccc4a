"""Federated DP-MERF: mean random features of images in, a generator fitted to their mean.

The server names random frequencies of feature space by a seed. Each client answers, for each class
that it holds, with the mean cosine and sine of its images' features there, less those of the public
pool. From then on all is as with the Cramér critic: releases carry their scale, the pool is
weighted anew, and the generator is fitted to pool and releases.

Shapes: L classes, P frequencies of a class, D features, N images.

Source: DP-MERF, Harder et al., arXiv 2002.11603, sections 2.2 and 3: the distance of the mean
    embeddings is the maximum mean discrepancy of a Gaussian kernel. Centring, scale, public
    features and pool are this project's.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms.base import Query, ReleaseShape, Request
from fed_gswgan.algorithms.solved import SolvedAnswers, SolvedQuestions, tensor_of
from fed_gswgan.critics.cramer import Statistic
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field import rule
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.seeding import SeedStream

COMPARED = 200  # images of a class whose median distance is the kernel's width
OCTAVES = 1.0  # standard deviation of the logarithm of a frequency's width: a mixture of kernels


class Settings(AdaptationSettings):
    """Keys of the mean embedding, beside the shared ones: those of prior, features and generator.

    ``points`` counts numbers as it does for the Cramér critic: D / 2 frequencies each.
    """


def keeps_state(settings: Settings) -> bool:
    """Return False: a client remembers nothing."""
    return False


resolved = rule.resolved


def waves_of_each(frequencies_PD: Tensor, images_ND: Tensor) -> Tensor:
    """Return cosine and sine of each image at each frequency, (N, P, 2)."""
    angles_NP = images_ND @ frequencies_PD.mT
    return torch.stack([angles_NP.cos(), angles_NP.sin()], -1)


def mean_waves(frequencies_PD: Tensor, images_ND: Tensor, weights_N: Tensor | None) -> Tensor:
    """Return the mean cosine and sine over the images, (P, 2); dimensions before these are kept."""
    waves_NP2 = waves_of_each(frequencies_PD, images_ND)
    if weights_N is None:
        return waves_NP2.mean(-3)
    weights_PN = weights_N.expand(len(frequencies_PD), -1)
    return torch.einsum("pn,npe->pe", weights_PN, waves_NP2)


WAVES = Statistic(mean_waves, waves_of_each)


def count_of(points: int, size: int) -> int:
    """Return P: so many frequencies, of two numbers, are as many numbers as the points' rows."""
    return max(points * size // 2, 1)


def frequencies_of(seed: int, width: float, shape: tuple[int, int, int]) -> Tensor:
    """Return random frequencies (L, P, D), the same for every class.

    Args:
        seed: of the round.
        width: of the Gaussian kernel; each frequency has one that is spread around it.
        shape: L, P, D.
    """
    randomness = SeedStream(seed).generator("frequencies")
    drawn_PD = randomness.standard_normal(shape[1:], dtype=np.float32)
    widths_P1 = width * np.exp(OCTAVES * randomness.standard_normal((shape[1], 1)))
    return torch.from_numpy((drawn_PD / widths_P1).astype(np.float32)).expand(shape)


class Client(SolvedAnswers):
    """Answers with its mean waves of each class, less the public ones."""

    statistic = WAVES

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        super().__init__(settings, spec)
        self.frequencies = count_of(self.points, self.size)

    def release(self, server_round: int) -> ReleaseShape:
        """Return a row a frequency and a number of scale a class, bounded as a whole."""
        rows = self.classes * self.frequencies
        return ReleaseShape(rows, 2, extra=self.classes, bounded="message")

    def check(self, request: Request) -> None:
        """Require the public mean waves, a seed and a width, in the features of this client."""
        shapes = {"public": (self.classes, self.frequencies, 2)}
        self.require(request, shapes, {"features", "seed", "width"})
        seed, width = request.scalars["seed"], request.scalars["width"]
        if type(seed) is not int or seed < 0:
            raise ValueError(f"seed={seed!r} must be a whole number >= 0")
        if type(width) is not float or not 1e-6 < width < 1e6:
            raise ValueError(f"width={width!r} must be a number between 1e-6 and 1e6")

    def question(self, request: Request) -> tuple[Tensor, Tensor]:
        """Return frequencies (L, P, D) and public mean waves (L, P, 2), float32."""
        shape = self.classes, self.frequencies, self.size
        seed, width = int(request.scalars["seed"]), float(request.scalars["width"])
        return frequencies_of(seed, width, shape), tensor_of(request, "public")


class Embedding(Adaptation):
    """An adaptation that asks at random frequencies."""

    statistic = WAVES

    seed, width = 0, 1.0

    def choose(self, randomness: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return frequencies (L, P, D), and no latents."""
        self.seed = int(randomness.integers(2**62))
        self.width = self._width()
        size = self.features.size(self.spec.image_shape)
        shape = self.spec.num_classes, count_of(self.points, size), size
        return frequencies_of(self.seed, self.width, shape), torch.zeros(*shape[:2], 0)

    def _width(self) -> float:
        """Return the median distance between public images of a class."""
        if self.pool is not None:
            public_LMD = self.pool.features_LMD[:, :COMPARED]
        else:
            latents_LMZ = self.latents_of(COMPARED, self.seeds.generator("width"))
            public_LMD = self.samples_features(latents_LMZ)
        distances = torch.cdist(public_LMD, public_LMD)
        return max(float(distances[distances > 0].median()), 1e-3)


class Server(SolvedQuestions):
    """Keeps every release, weights the pool and fits the generator to all."""

    def __init__(self, settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> None:
        super().__init__(Embedding(settings, spec, seeds, rounds))

    def request(self, server_round: int) -> Query:
        """Name the round's frequencies, and compute the public mean waves there."""
        embedding = cast(Embedding, self.adaptation)
        question = embedding.ask(server_round)
        scalars: dict[str, int | float | str] = {
            "features": embedding.features.hash(),
            "seed": embedding.seed,
            "width": embedding.width,
        }
        tensors = {"public": question.public_LPE.numpy()}
        return Query(tensors=tensors, scalars=scalars, kept=question)
