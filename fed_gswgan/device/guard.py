"""The guard: the one object between a server and a client's data.

A request goes in; a sanitized gradient or a refusal comes out. Data, critic and ledger stay behind
it, in every runtime.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fed_gswgan.critics.wgan_gp import (
    critic_optimizer,
    from_vector,
    sample_gradient,
    to_vector,
    train_critic,
    warm_start,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.critic_slots import CriticSlots
from fed_gswgan.device.private_client import CriticVector, PrivateClient
from fed_gswgan.device.request_check import check_request
from fed_gswgan.models.registry import build_critic
from fed_gswgan.privacy.noise_source import NoiseSource, SecureNoise
from fed_gswgan.privacy.sanitizer import SanitizedGradient, sanitize
from fed_gswgan.privacy.selftest import require_randomness, selftest
from fed_gswgan.profiling import timed
from fed_gswgan.release_basis import to_release_basis
from fed_gswgan.wire.messages import TrainReply, TrainRequest

logger = logging.getLogger(__name__)


class Critic(NamedTuple):
    """A critic and its optimizer, which train together and are kept together."""

    network: nn.Module
    optimizer: torch.optim.Adam


class Guard:
    """Answers train requests for one client.

    Args:
        client: whom it stands before.
        noise_source: of a round; secure unless whoever builds the guard says otherwise.
    """

    def __init__(
        self,
        client: PrivateClient,
        noise_source: Callable[[int], NoiseSource] = lambda server_round: SecureNoise(),
    ) -> None:
        self._client = client
        self._noise_source = noise_source
        self._persistent = client.config.critic.critic_state == "persistent"
        self._tested = False

    def answer(self, request: TrainRequest) -> TrainReply:
        """Train the critic on the samples and return the sanitized gradient: one round, whole.

        A request that was answered before gets the identical bytes again, at no charge, as long as
        they are kept; after that the policy decides whether it is a new release.

        Raises:
            Refusal: refused by name, from the request, the policy and the ledger alone, before any
                data was read; nothing was charged.
        """
        client = self._client
        event = check_request(request, client.policy, client.num_classes)
        with client.release(request.key(), event, request.reply_shape()) as release:
            if (kept := release.kept_values) is not None:
                return _reply(request, SanitizedGradient(values_BCHW=kept, event=event))
            self._require_working_sanitizer()
            release.reserve()  # refused, or on disk, before any data is read

            critic_after, gradients_BCHW = self._train(request, release.slots)
            with timed("sanitize"):
                noise_source = self._noise_source(request.server_round)
                values = to_release_basis(gradients_BCHW, request.dct_frequencies)
                sanitized = sanitize(values, event, noise_source)
            del gradients_BCHW, values
            release.keep(sanitized.values_BCHW, critic_after, request.checkpoint_round)
        return _reply(request, sanitized)

    def _train(
        self, request: TrainRequest, slots: CriticSlots
    ) -> tuple[CriticVector | None, np.ndarray]:
        """Return the critic to keep and the sample gradient, private; zeros if anything fails.

        Whether training fails can depend on the data, so a failure must look like any other reply:
        it is noted on the device, and the zeros are noised like a gradient.
        """
        try:
            with timed("critic"):
                critic = self._critic_before(request.server_round, slots)
                kept = None if self._persistent else to_vector(*critic)
                config = self._client.config.critic
                samples_NBCHW, labels_NB = map(_tensor, request.critic_batches())
                train_critic(
                    *critic,
                    self._client.shard,
                    samples_NBCHW,
                    labels_NB,
                    config,
                    self._client.randomness("critic-training", request.server_round),
                )
                asked = _tensor(request.samples_BCHW), _tensor(request.labels_B)
                gradients_BCHW = sample_gradient(critic.network, *asked, config.critic_compute)
            return kept or to_vector(*critic), gradients_BCHW.numpy()
        except Exception:
            note_failure(self._client.folder)
            return None, np.zeros_like(request.samples_BCHW)

    def _critic_before(self, server_round: int, slots: CriticSlots) -> Critic:
        """Return the critic as the last round before this one left it, or a new one.

        Under ``critic-state = snapshot`` what a round leaves is the critic it began with, so that
        none depends on how often its client took part; only then does sampling amplify.
        """
        config, classes = self._client.config, self._client.num_classes
        seed = self._client.torch_seed("critic-weights")
        network = build_critic(config.critic, DataSpec(IMAGE_SHAPE, classes), seed)
        critic = Critic(network, critic_optimizer(network, config.critic, config.adam))
        state = slots.before(server_round)
        if state is not None and state.optimizer_steps > 0:
            try:
                from_vector(*critic, state.parameters, state.optimizer_steps)
                return critic
            except ValueError as error:  # the owner chose another critic since
                logger.warning("%s; it begins anew", error)
        randomness = self._client.randomness("warm-start", 0)
        warm_start(*critic, self._client.shard, classes, config.critic, config.adam, randomness)
        return critic

    def _require_working_sanitizer(self) -> None:
        require_randomness()
        if not self._tested:
            selftest(self._noise_source(0))
            self._tested = True


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Return a copy: however an array lies in memory, PyTorch takes it, and never writes to it."""
    return torch.from_numpy(np.array(array))


def _reply(request: TrainRequest, gradient: SanitizedGradient) -> TrainReply:
    return TrainReply(server_round=request.server_round, gradient=gradient)
