"""Both halves of the Cramér critic: points out, noisy fields in, a generator fitted to all of them.

The server asks at points of a public feature space; a client answers with what its images say
there, in one product of matrices, and remembers nothing. Algorithms that ask for another statistic
of images, or answer in another way, are subclasses of these halves.

Shapes: L classes, P points of a class, D features, E numbers at a point, N images, C channels,
H and W image.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms.base import (
    ClientView,
    Mean,
    Metrics,
    Query,
    ReleaseShape,
    Request,
    Sampler,
    Step,
    Update,
)
from fed_gswgan.critics.cramer import DIRECTIONS, client_update, field_of
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.models.trainer import sampler_of
from fed_gswgan.priors.prior import open_features

MOST_KEPT = 10_000  # clients whose images' features are kept in memory


class SolvedAnswers:
    """Client half of the Cramér critic: answers with its gradient's private half at the points.

    An algorithm that asks for another ``statistic`` of images is a subclass.
    """

    statistic = DIRECTIONS

    def __init__(self, settings: AdaptationSettings, spec: DataSpec) -> None:
        self.features = open_features(settings, spec)
        self.classes, self.points = spec.num_classes, settings.points or 1
        self.size = self.features.size(spec.image_shape)
        self._known: dict[bytes, Tensor] = {}

    def release(self, server_round: int) -> ReleaseShape:
        """Return a row a point and a number of scale a class, bounded as a whole."""
        return ReleaseShape(
            self.classes * self.points, self.size, extra=self.classes, bounded="message"
        )

    def check(self, request: Request) -> None:
        """Require points and public half of this shape, in the features that this client has."""
        shape = self.classes, self.points, self.size
        self.require(request, {"points": shape, "public": shape}, {"features"})

    def require(
        self, request: Request, shapes: Mapping[str, tuple[int, ...]], scalars: set[str]
    ) -> None:
        """Require float16 tensors of these shapes and these scalars, and the client's features.

        Raises:
            ValueError: naming the tensor or scalar, the rule and the value.
        """
        if request.tensors.keys() != shapes.keys() or request.scalars.keys() != scalars:
            raise ValueError(
                f"tensors must be {', '.join(shapes)}, scalars {', '.join(sorted(scalars))}"
            )
        for name, tensor in request.tensors.items():
            if tensor.shape != shapes[name] or tensor.dtype != np.float16:
                raise ValueError(
                    f"{name} is {tensor.dtype} of {tensor.shape}, must be float16 of {shapes[name]}"
                )
        if request.scalars["features"] != self.features.hash():
            asked = str(request.scalars["features"])[:12]
            raise ValueError(
                f"features={asked} are unknown here, must be {self.features.hash()[:12]}"
            )

    def question(self, request: Request) -> tuple[Tensor, Tensor]:
        """Return points (L, P, D) and public half (L, P, E), float32."""
        return tensor_of(request, "points"), tensor_of(request, "public")

    def update(self, request: Request, client: ClientView) -> Update:
        """Return what the client's images say at the points, less what the public ones do."""
        points_LPD, public_LPE = self.question(request)
        labels_N = torch.from_numpy(client.dataset.labels)
        features_ND = self.features_of(client.dataset.images)
        rows_LPE, scale_L = client_update(
            points_LPD, public_LPE, features_ND, labels_N, self.statistic
        )
        return Update(rows_LPE.flatten(0, 1).numpy(), scale_L.numpy())

    @torch.no_grad()
    def features_of(self, images_NCHW: np.ndarray) -> Tensor:
        """Return the features of a client's images, computed once a run."""
        key = hashlib.blake2b(images_NCHW.tobytes(), digest_size=16).digest()
        if key not in self._known:
            while len(self._known) >= MOST_KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = self.features(torch.from_numpy(images_NCHW))
        return self._known[key]


def tensor_of(request: Request, name: str) -> Tensor:
    """Return a request's tensor as float32."""
    return torch.from_numpy(np.array(request.tensors[name], np.float32))


class SolvedQuestions:
    """Server half of the Cramér critic: keeps every release, and fits the generator to all."""

    def __init__(self, adaptation: Adaptation) -> None:
        self.adaptation, self.trainer = adaptation, adaptation.trainer

    def request(self, server_round: int) -> Query:
        """Choose the round's points, and compute the public half of the gradient there."""
        question = self.adaptation.ask(server_round)
        return Query(
            tensors={"points": question.points_LPD.numpy(), "public": question.public_LPE.numpy()},
            scalars={"features": self.adaptation.features.hash()},
            kept=question,
        )

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Read the field out of the mean; weight the pool and fit the generator anew."""
        points_LPD, public_LPE, latents_LPZ = query.kept
        points_LPD, public_LPE = points_LPD.float(), public_LPE.float()
        field = field_of(points_LPD, public_LPE, mean.update_RN, mean.extra_E, mean.noise_stddev)
        metrics = self.adaptation.learn(server_round, field, latents_LPZ)
        row_norm = float((field.values_LPE - public_LPE).norm(dim=2).mean())
        return Step({"combined_gradient_norm": row_norm, **metrics})

    def finish(self) -> Metrics:
        """Do nothing: every release was used in its round."""
        return {}

    def sampler(self) -> Sampler:
        """Draw from the generator's moving average."""
        return sampler_of(self.trainer.ema_generator, self.adaptation.settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Return generator, optimizer, fields and weights."""
        return self.adaptation.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        self.adaptation.load_state_dict(state)
