"""Federated GS-WGAN: samples out, gradients of local critics at the samples in, a generator step.

A critic owns what is asked, what is answered and what is learned. Clients of a trained critic
(``mlp``, ``conv``) train one of their own, on their images and the samples that the server sends,
and answer with its gradient at the samples, which the server sends back through its generator. The
``cramer`` critic is solved: clients are asked at points of a public feature space and answer in one
product of matrices; the server keeps every answer and fits its generator to all of them. Either
way the guard bounds and noises what leaves.

Shapes: B batch, K critic batches, Z latent, C channels, H and W image, F frequencies of an axis,
L classes, P points of a class, D features.

Source: GS-WGAN, arXiv 2006.08265, with clients of many users in place of disjoint subsets.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from fed_gswgan.algorithms import base
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
from fed_gswgan.algorithms.solved import SolvedAnswers, SolvedQuestions
from fed_gswgan.basis import release_shape, to_pixels, to_release_basis
from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    from_state,
    sample_gradient,
    to_state,
    train_critic,
    warm_start,
)
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field import rule
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.models.registry import CRITICS, build_critic, build_generator
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents, sampler_of
from fed_gswgan.priors.prior import open_prior
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Count, Whole, plug_in

logger = logging.getLogger(__name__)
CRAMER = "cramer"


class Settings(CriticSettings, AdaptationSettings):
    """Keys of GS-WGAN, beside the shared ones."""

    critic: str = CRAMER
    """cramer (solved), mlp, conv (the paper's), or package.module:Class; those are trained"""
    batch_size: Count = 32
    """samples that a release answers (trained critics)"""
    critic_batches: Whole = 0
    """further batches for the critic's steps; 0: the answered samples serve"""
    clipping: Literal["sample", "message"] = "sample"
    """sample: each row to the bound; message: the release as a whole"""
    dct_frequencies: Whole = 0
    """a release holds the n x n lowest frequencies of each row; 0: pixels"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.critic not in (CRAMER, *CRITICS) and ":" not in self.critic:
            raise ValueError(
                f"critic={self.critic!r} must be one of {CRAMER}, {', '.join(CRITICS)}, or "
                "package.module:Class"
            )
        if ":" in self.critic:
            plug_in("critic", self.critic, ("fit", "sample_gradient"))
        return self


def keeps_state(settings: Settings) -> bool:
    """Tell whether a client's critic remembers earlier rounds."""
    return settings.critic != CRAMER and settings.critic_state == "persistent"


def resolved(settings: Settings, spec: DataSpec, mean_noise: float) -> Settings:
    """Return the settings with those filled in that follow from the noise of the mean."""
    if settings.critic != CRAMER:
        return settings
    return rule.resolved(settings, spec, mean_noise)


class TrainedCritic:
    """Critic ``mlp`` or ``conv``, trained on the WGAN-GP loss; another critic has both methods."""

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        self._settings, self._spec = settings, spec
        self._prior = open_prior(settings, spec)

    def fit(
        self, client: ClientView, samples_KBCHW: Tensor, labels_KB: Tensor, server_round: int
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Train the client's critic; return it and its state.

        Under ``critic-state = snapshot`` the state is the critic that the round began with, so that
        none depends on how often its client took part.
        """
        settings, classes = self._settings, self._spec.num_classes
        network = build_critic(settings, self._spec, client.torch_seed("critic-weights"))
        if self._prior:
            self._prior.start(network, "critic", settings)
        optimizer = critic_optimizer(network, settings)
        if not self._restore(network, optimizer, client):
            randomness = client.randomness("warm-start")
            warm_start(network, optimizer, client.dataset, classes, settings, randomness)
        before = None if keeps_state(settings) else to_state(network, optimizer)
        randomness = client.randomness("critic-training", server_round)
        train_critic(
            network, optimizer, client.dataset, samples_KBCHW, labels_KB, settings, randomness
        )
        return network, before or to_state(network, optimizer)

    def sample_gradient(self, critic: Any, samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the gradient of the generator's loss at the samples, a row a sample."""
        return sample_gradient(critic, samples_BCHW, labels_B)

    def _restore(self, network: Any, optimizer: torch.optim.Adam, client: ClientView) -> bool:
        if client.state is None or not client.state["steps"][0]:
            return False
        try:
            from_state(network, optimizer, client.state)
        except ValueError as error:  # the owner chose another critic since
            logger.warning("%s; it begins anew", error)
            return False
        return True


class TrainedAnswers:
    """Client half of a trained critic: answers with its gradient at the samples."""

    def __init__(self, settings: Settings, spec: DataSpec) -> None:
        self._settings, self._spec = settings, spec
        self._samples_shape = (settings.batch_size, *spec.image_shape)
        if ":" in settings.critic:
            critic = plug_in("critic", settings.critic, ("fit", "sample_gradient"))
            self.critic: Any = critic(settings, spec)
        else:
            self.critic = TrainedCritic(settings, spec)

    def release(self, server_round: int) -> ReleaseShape:
        """Return a row a sample, in pixels or frequencies."""
        batch, *row = release_shape(self._samples_shape, self._settings.dct_frequencies)
        return ReleaseShape(batch, math.prod(row), bounded=self._settings.clipping)

    def check(self, request: Request) -> None:
        """Require samples in [0, 1] of this batch size and labels of this data set."""
        batches, size = self._settings.critic_batches, self._settings.batch_size
        wanted = {"samples": self._samples_shape, "labels": (size,)}
        if batches:
            wanted["critic-samples"] = (batches, *self._samples_shape)
            wanted["critic-labels"] = (batches, size)
        if request.tensors.keys() != wanted.keys() or request.scalars:
            raise ValueError(f"tensors must be {', '.join(wanted)}, and no scalars")
        for name, shape in wanted.items():
            tensor, of_labels = request.tensors[name], "labels" in name
            if tensor.shape != shape or tensor.dtype != (np.int64 if of_labels else np.float32):
                raise ValueError(f"{name} is {tensor.dtype} of {tensor.shape}, must be of {shape}")
            highest = self._spec.num_classes - 1 if of_labels else 1
            if not (tensor.min() >= 0 and tensor.max() <= highest):
                raise ValueError(f"{name} must lie in [0, {highest}]")

    def update(self, request: Request, client: ClientView) -> Update:
        """Train the critic and return its gradient at the samples."""
        samples_BCHW, labels_B = self._tensor(request, "samples"), self._tensor(request, "labels")
        batches_KBCHW, labels_KB = samples_BCHW[None], labels_B[None]
        if self._settings.critic_batches:
            batches_KBCHW = self._tensor(request, "critic-samples")
            labels_KB = self._tensor(request, "critic-labels")
        critic, state = self.critic.fit(client, batches_KBCHW, labels_KB, request.server_round)
        gradient_BCHW = self.critic.sample_gradient(critic, samples_BCHW, labels_B).numpy()
        values = to_release_basis(gradient_BCHW, self._settings.dct_frequencies)
        return Update(values.reshape(len(values), -1), state=state)

    def _tensor(self, request: Request, name: str) -> Tensor:
        return torch.from_numpy(np.array(request.tensors[name]))  # a copy that may be written to


class TrainedQuestions:
    """Server half of a trained critic: steps the generator along the cohort's mean gradient."""

    def __init__(self, settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> None:
        self._settings, self._spec, self._seeds, self._rounds = settings, spec, seeds, rounds
        generator = build_generator(settings, spec, seeds.torch_seed("generator-weights"))
        if prior := open_prior(settings, spec):
            prior.start(generator, "generator", settings)
        self.trainer = GeneratorTrainer(generator, settings)
        self._samples_shape = (settings.batch_size, *spec.image_shape)
        self._row_shape = release_shape(self._samples_shape, settings.dct_frequencies)

    def request(self, server_round: int) -> Query:
        """Generate the round's samples; latents and labels are kept for the step."""
        size, batches = self._settings.batch_size, self._settings.critic_batches
        latents_BZ, labels_B = self._inputs("latents", server_round, size)
        samples_BCHW = self.trainer.samples(latents_BZ, labels_B)
        tensors = {"samples": samples_BCHW.numpy(), "labels": labels_B.numpy()}
        if batches:
            critic_inputs = self._inputs("critic-latents", server_round, batches * size)
            samples = self.trainer.samples(*critic_inputs).numpy()
            tensors["critic-samples"] = samples.reshape(batches, *self._samples_shape)
            tensors["critic-labels"] = critic_inputs[1].numpy().reshape(batches, size)
        return Query(
            tensors=tensors,
            unit_range=frozenset({"samples", "critic-samples"} & tensors.keys()),
            kept=(latents_BZ, labels_B),
        )

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Send the mean gradient back through the generator."""
        self.trainer.set_learning_rate(server_round / self._rounds)
        latents_BZ, labels_B = query.kept
        values = mean.update_RN.astype(np.float32).reshape(self._row_shape)
        side = self._samples_shape[-1]
        pixels = to_pixels(values, side, self._settings.dct_frequencies)
        gradient_BCHW = torch.from_numpy(pixels)
        norm = self.trainer.step(latents_BZ, labels_B, gradient_BCHW)
        row_norm = float(gradient_BCHW.flatten(1).norm(dim=1).mean())
        return Step({"combined_gradient_norm": row_norm, "generator_gradient_norm": norm})

    def finish(self) -> Metrics:
        """Do nothing: every release was used in its round."""
        return {}

    def sampler(self) -> Sampler:
        """Draw from the generator's moving average."""
        return sampler_of(self.trainer.ema_generator, self._settings)

    def state_dict(self) -> dict[str, Tensor]:
        """Return generator, moving average and optimizer."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``."""
        self.trainer.load_state_dict(state)

    def _inputs(self, purpose: str, server_round: int, count: int) -> tuple[Tensor, Tensor]:
        """Return latents_BZ and uniform labels_B, which follow from seed and round."""
        randomness = self._seeds.generator(purpose, server_round)
        settings = self._settings
        latents_BZ = draw_latents(count, settings.latent_dim, settings.latent_kind, randomness)
        return latents_BZ, draw_labels(count, self._spec.num_classes, randomness)


def Client(settings: Settings, spec: DataSpec) -> base.Client:
    """Return the client half of the critic that the settings name."""
    return (SolvedAnswers if settings.critic == CRAMER else TrainedAnswers)(settings, spec)


def Server(settings: Settings, spec: DataSpec, seeds: SeedStream, rounds: int) -> base.Server:
    """Return the server half of the critic that the settings name."""
    if settings.critic == CRAMER:
        return SolvedQuestions(Adaptation(settings, spec, seeds, rounds))
    return TrainedQuestions(settings, spec, seeds, rounds)
