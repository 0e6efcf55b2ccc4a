"""What the server makes of fields: weights of a public pool, and a generator fitted to both.

The server asks at images of the pool, drawn by their weights, or at samples of the generator where
there is no pool. Every release's field is kept: the true field depends on no generator, so that all
of them say something about the same clients. After each release the pool is weighted anew and the
generator takes its share of the steps of the fit.

How far the pool is trusted beside the fields follows from what the fields are worth: the precision
of a class is the sum over its points of 1 / sigma^2, sigma the noise on one coordinate, and the
lower it is the more the pool decides (``fed_gswgan.field.rule``). Metrics of every round tell it.

Shapes: L classes, M pool images of a class, P points of a class, S samples of a class, D features,
Z latent, C channels, H and W image.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, reduce
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.critics.cramer import DIRECTIONS, Field
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field.fit import field_loss, pool_loss, sample_loss
from fed_gswgan.field.rule import FIT_STEPS, AdaptationSettings, Rule, rule
from fed_gswgan.field.tilt import (
    Evidence,
    evidence_of,
    log_base_of,
    shared_style,
    style_of,
    tilted,
    uniform,
)
from fed_gswgan.models.features import Features
from fed_gswgan.models.generators import SlimGenerator
from fed_gswgan.models.registry import build_generator, parameter_count
from fed_gswgan.models.trainer import GeneratorTrainer, draw_latents
from fed_gswgan.priors.prior import open_features, open_prior
from fed_gswgan.progress import steps
from fed_gswgan.seeding import SeedStream

logger = logging.getLogger(__name__)

POINT_SPREAD = 0.01  # of points around the features of pool images
CENTRE = 400  # samples of a class whose mean direction is the public half without a pool
RICH_FREQUENCIES, RICH_SHARE = 12, 6.0  # of the features in which samples are compared to the pool
SAMPLES, LEAST_SAMPLES = 160, 10  # of a step of the fit: all classes together, each class
ASKED_BELOW = 0.05  # of the pool in the loss: then the generator's own samples are the points
DRAWN = 64  # images of a class's pool in a step
LEAST_CHANCE = 1e-9  # of an image of the pool to be drawn
SMALL_GENERATOR = 50_000  # parameters
FIT = {
    "generator_learning_rate": 1e-3,
    "generator_learning_rate_end_factor": 0.1,
    "ema_halflife_steps": 80.0,
}
BLANK_BIAS = -3.0  # of a generator without a prior: it begins with blank paper
FOLLOWED_POINTS = 16  # of a class and step, at which the sample gradient is followed
FOLLOWED_SHARE = 0.3  # of the sample gradient in the loss
MOST_NUMBERS = 60_000  # of the fields of a class that are kept; the oldest go first


class Pool(NamedTuple):
    """The public images of a run, and what is computed of them once."""

    images_LMHW: Tensor
    features_LMD: Tensor
    rich_LMR: Tensor
    style_LMT: Tensor


class Question(NamedTuple):
    """Points that clients are asked about.

    Attributes:
        points_LPD: in feature space, float16.
        public_LPE: the public half there, float16.
        latents_LPZ: whose samples the points are; Z is 0 for images of the pool.
    """

    points_LPD: Tensor
    public_LPE: Tensor
    latents_LPZ: Tensor


class Adaptation:
    """Pool, weights, fields and generator of a run.

    A subclass may ask for another ``statistic`` at other points (``choose``).

    Args:
        settings: of prior, features, generator and points.
        spec: of the data set.
        seeds: of points and fit.
        rounds: of the run; the steps of the fit are shared between them.
    """

    statistic = DIRECTIONS

    def __init__(
        self, settings: AdaptationSettings, spec: DataSpec, seeds: SeedStream, rounds: int
    ) -> None:
        self.settings, self.spec, self.seeds, self._rounds = settings, spec, seeds, rounds
        self.points, self._steps = settings.points or 1, settings.fit_steps or FIT_STEPS
        self.features = open_features(settings, spec)
        self._prior = open_prior(settings, spec)
        generator = build_generator(settings, spec, seeds.torch_seed("generator-weights"))
        if self._prior:
            self._prior.start(generator, "generator", settings)
        elif isinstance(generator, SlimGenerator):
            torch.nn.init.constant_(cast(Tensor, generator.to_image.bias), BLANK_BIAS)
        self.trainer = GeneratorTrainer(generator, settings.model_copy(update=FIT))
        self.fields: list[Field] = []
        self.latents: list[Tensor] = []
        self._taken = 0  # steps of the fit
        self._theta_T = torch.zeros(12)
        self._log_weights_LM: Tensor | None = None
        self._evidence: Evidence | None = None

    @cached_property
    def pool(self) -> Pool | None:
        """The pool and its features; None without a prior."""
        if self._prior is None:
            return None
        images_LMHW = self._prior.pool()
        of_classes = steps("features of the pool", images_LMHW[:, :, None].unbind())
        with torch.no_grad():
            compared = [self._compared(images_MCHW) for images_MCHW in of_classes]
        phi_LMD, rich_LMR = (torch.stack(features) for features in zip(*compared, strict=True))
        return Pool(images_LMHW, phi_LMD, rich_LMR, style_of(images_LMHW))

    @property
    def public_pool(self) -> Pool:
        """The pool.

        Raises:
            ValueError: there is no prior.
        """
        if self.pool is None:
            raise ValueError("prior=none has no images to weight; set prior=strokes or folder:PATH")
        return self.pool

    @cached_property
    def _rich(self) -> Features:
        components, side = self.features.components, self.spec.image_shape[-1]
        count = 0 if components is None else len(components.basis_KA)
        return Features(min(RICH_FREQUENCIES, side), components, count, RICH_SHARE)

    def _compared(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, and the richer ones."""
        components = self.features.components
        projected = None if components is None else components(images_NCHW)
        return self.features.of(images_NCHW, projected), self._rich.of(images_NCHW, projected)

    @property
    def log_weights_LM(self) -> Tensor:
        """Logarithms of the weights of the pool's images."""
        if self._log_weights_LM is None:
            self._log_weights_LM = uniform(*self.public_pool.images_LMHW.shape[:2])
        return self._log_weights_LM

    @property
    def images_in_use(self) -> float:
        """How many images of a class have weight: as many equal weights have the same squares."""
        return float((1 / (2 * self.log_weights_LM).exp().sum(1)).mean())

    @property
    def samples_are_asked(self) -> bool:
        """Whether points are the generator's samples: no pool, or fields that tell more than it."""
        if self.pool is None:
            return True
        return bool(self.fields) and rule(self.fields).pool_share < ASKED_BELOW

    @torch.no_grad()
    def ask(self, server_round: int) -> Question:
        """Return the points of a round, and the public half of what is asked there."""
        randomness = self.seeds.generator("points", server_round)
        points_LPD, latents_LPZ = self.choose(randomness)
        if self.samples_are_asked:
            sources_LND = self.samples_features(self.latents_of(CENTRE, randomness))
            weights = [None] * len(sources_LND)
        else:
            sources_LND, weights = self.public_pool.features_LMD, list(self.log_weights_LM.exp())
        asked = zip(points_LPD.float(), sources_LND, weights, strict=True)
        public = torch.stack([self.statistic.mean(*of_class) for of_class in asked])
        return Question(points_LPD, public.half(), latents_LPZ)

    def choose(self, randomness: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return points (L, P, D), and the latents (L, P, Z) of samples that they are."""
        count = self.points
        if self.samples_are_asked:
            latents_LPZ = self.latents_of(count, randomness)
            return self.samples_features(latents_LPZ).half(), latents_LPZ
        chances_LM = self._chances()
        points = [
            of_class[randomness.choice(len(p), count, replace=False, p=p)]
            for of_class, p in zip(self.public_pool.features_LMD, chances_LM, strict=True)
        ]
        points_LPD = torch.stack(points)
        spread = randomness.standard_normal(points_LPD.shape, dtype=np.float32)
        no_latents = torch.zeros(*points_LPD.shape[:2], 0)
        return (points_LPD + POINT_SPREAD * torch.from_numpy(spread)).half(), no_latents

    def learn(self, server_round: int, field: Field, latents_LPZ: Tensor) -> dict[str, float]:
        """Keep a release's field, weight the pool anew, and take the round's steps of the fit."""
        self.fields.append(field)
        self.latents.append(latents_LPZ)
        self._drop_oldest()
        found = rule(self.fields)
        metrics = {"field_precision": found.precision}
        if self.pool is not None:
            self.tilt(found)
            metrics["pool_share"] = found.pool_share
            metrics["pool_images_in_use"] = self.images_in_use
        weights = found.field_weights_L, found.pool_weights_L
        metrics["generator_gradient_norm"] = self.fit(server_round, *weights)
        return metrics

    def _steps_until(self, server_round: int) -> int:
        return self._steps * min(server_round, self._rounds) // self._rounds

    def _drop_oldest(self) -> None:
        while (
            len(self.fields) > 1
            and sum(field.values_LPE[0].numel() for field in self.fields) > MOST_NUMBERS
        ):
            logger.info(
                "more than %d numbers of a class: the oldest release is dropped", MOST_NUMBERS
            )
            del self.fields[0], self.latents[0]
            self._evidence = None

    def tilt(self, found: Rule) -> None:
        """Weight the pool anew, by the evidence of all fields."""
        pool = self.public_pool
        unread = self.fields if self._evidence is None else self.fields[-1:]
        known = [] if self._evidence is None else [self._evidence]
        known += [evidence_of(field, pool.features_LMD, self.statistic) for field in unread]
        self._evidence = evidence = reduce(Evidence.plus, known)
        base = uniform(*pool.images_LMHW.shape[:2])
        if found.style:
            self._theta_T = shared_style(evidence, pool.style_LMT, self._theta_T)
            base = log_base_of(pool.style_LMT, self._theta_T)
        self._log_weights_LM = tilted(evidence, base, found.strength)

    def weigh(self, log_weights_LM: Tensor) -> None:
        """Give the pool's images weights that an algorithm found in its own way."""
        self._log_weights_LM = log_weights_LM

    def fit(self, server_round: int, field_weights_L: Tensor, pool_weights_L: Tensor) -> float:
        """Take the round's steps of the fit; return the norm of the last one's gradient.

        Args:
            server_round: of all rounds, between which the steps are shared; those of rounds before
                it that were lost are made up for.
            field_weights_L: of each class's fields in the loss, if there are any.
            pool_weights_L: of each class's pool there, if there is one.
        """
        ended = self._steps_until(server_round)
        randomness = self.seeds.generator("fit", server_round)
        chances_LM = None if self.pool is None else self._chances()
        norm = 0.0
        with _threads(self.trainer.generator):
            for step in steps("fit of the generator", range(self._taken, ended)):
                self.trainer.set_learning_rate(step / self._steps)
                norm = self._step(field_weights_L, pool_weights_L, chances_LM, randomness)
        self._taken = max(self._taken, ended)
        return norm

    def _step(
        self,
        field_weights_L: Tensor,
        pool_weights_L: Tensor,
        chances_LM: np.ndarray | None,
        randomness: np.random.Generator,
    ) -> float:
        classes = self.spec.num_classes
        samples = max(SAMPLES // classes, LEAST_SAMPLES)
        labels_B, shape = torch.arange(classes).repeat_interleave(samples), (classes, samples)
        latents_LSZ = self.latents_of(samples, randomness)
        images_BCHW = self.trainer.generator(latents_LSZ.flatten(0, 1), labels_B)
        phi_BD, rich_BR = self._compared(images_BCHW)
        phi_LSD = _by_class(phi_BD, shape)
        loss_L = phi_LSD.new_zeros(classes)
        if self.fields:
            loss_L = field_weights_L * field_loss(phi_LSD, self.fields, self.statistic)
        if chances_LM is not None:
            drawn_LSR = self._drawn(chances_LM, randomness)
            loss_L = loss_L + pool_weights_L * pool_loss(_by_class(rich_BR, shape), drawn_LSR)
        elif self.latents[-1].shape[2]:
            followed_L = self._followed(phi_LSD.detach(), randomness)
            loss_L = loss_L + FOLLOWED_SHARE * field_weights_L * followed_L
        return self.trainer.descend(loss_L.sum(), latents_LSZ[0], labels_B)

    def _followed(self, phi_LSD: Tensor, randomness: np.random.Generator) -> Tensor:
        """Return the loss (L,) whose slope is the critic's gradient at the samples asked about."""
        points_LPD = torch.cat([f.points_LPD for f in self.fields], 1)
        values_LPE = torch.cat([f.values_LPE for f in self.fields], 1)
        latents_LPZ = torch.cat(self.latents, 1)
        count = min(points_LPD.shape[1], FOLLOWED_POINTS)
        rows = torch.from_numpy(randomness.permutation(points_LPD.shape[1])[:count])
        now_LPD = self.samples_features(latents_LPZ[:, rows])
        return sample_loss(now_LPD, points_LPD[:, rows], values_LPE[:, rows], phi_LSD)

    def _chances(self) -> np.ndarray:
        """Return the weights as chances, (L, M); none is 0, so that enough images can be drawn."""
        weights_LM = self.log_weights_LM.double().exp().numpy() + LEAST_CHANCE
        return np.asarray(weights_LM / weights_LM.sum(1, keepdims=True))

    def _drawn(self, chances_LM: np.ndarray, randomness: np.random.Generator) -> Tensor:
        drawn = [
            of_class[torch.from_numpy(randomness.choice(len(p), DRAWN, p=p))]
            for of_class, p in zip(self.public_pool.rich_LMR, chances_LM, strict=True)
        ]
        return torch.stack(drawn)

    def latents_of(self, count: int, randomness: np.random.Generator) -> Tensor:
        """Return latents (L, count, Z)."""
        settings, classes = self.settings, self.spec.num_classes
        kind = settings.latent_kind
        latents = draw_latents(classes * count, settings.latent_dim, kind, randomness)
        return _by_class(latents, (classes, count))

    def samples_features(self, latents_LPZ: Tensor) -> Tensor:
        """Return the features (L, P, D) of the generator's samples."""
        classes, count = latents_LPZ.shape[:2]
        labels_N = torch.arange(classes).repeat_interleave(count)
        phi_ND: Tensor = self.features(self.trainer.generator(latents_LPZ.flatten(0, 1), labels_N))
        return _by_class(phi_ND, (classes, count))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator, its optimizer, and the fields with the points' latents."""
        state = self.trainer.state_dict() | {"tilt/theta": self._theta_T}
        state["fit/taken"] = torch.tensor(self._taken)
        for number, (field, latents) in enumerate(zip(self.fields, self.latents, strict=True)):
            tensors = {**field._asdict(), "latents": latents}
            state |= {f"field/{number:04d}/{n}": t.contiguous() for n, t in tensors.items()}
        if self._log_weights_LM is not None:
            state["tilt/log-weights"] = self._log_weights_LM
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        self.trainer.load_state_dict(state)
        self._theta_T, self._taken = state["tilt/theta"], int(state["fit/taken"])
        self._log_weights_LM = state.get("tilt/log-weights")
        numbers = sorted({name.split("/")[1] for name in state if name.startswith("field/")})
        parts: list[dict[str, Any]] = [
            {n.split("/")[2]: t for n, t in state.items() if n.startswith(f"field/{number}/")}
            for number in numbers
        ]
        self.latents = [part.pop("latents") for part in parts]
        self.fields = [Field(**part) for part in parts]


@contextmanager
def _threads(generator: torch.nn.Module) -> Iterator[None]:
    """Use every core, whatever a runtime set; a small generator is faster on one."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads((cores or 1) if parameter_count(generator) > SMALL_GENERATOR else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _by_class(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rows (L x N, ...) as (L, N, ...)."""
    return rows.view(*shape, *rows.shape[1:])
