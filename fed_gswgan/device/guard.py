"""The guard: the one object between a server and a client's data.

A request goes in; a sanitized gradient or a refusal comes out. Data, critic and ledger stay behind
it, in every runtime.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fed_gswgan.config import Config
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.device.answering import Answering, answer_alone
from fed_gswgan.device.client_folder import ANSWERING, LEDGER, note_failure
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.device.request_check import check_request
from fed_gswgan.models.build import build_critic
from fed_gswgan.privacy.durable_file import held
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.noise_source import NoiseSource, SecureNoise
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.sanitizer import SanitizedGradient, sanitize
from fed_gswgan.privacy.selftest import require_randomness, selftest
from fed_gswgan.profiling import timed
from fed_gswgan.release_basis import to_release_basis
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.critic_task import CriticTask
from fed_gswgan.training.critic_training import critic_optimizer
from fed_gswgan.training.critic_vector import from_vector, to_vector
from fed_gswgan.training.warm_start import warm_start
from fed_gswgan.wire.messages import TrainReply, TrainRequest

logger = logging.getLogger(__name__)

ANSWERING_PATIENCE_SECONDS = 60.0

CriticVector = tuple[np.ndarray, int]


class Critic(NamedTuple):
    """A critic and its optimizer, which train together and are kept together."""

    network: nn.Module
    optimizer: torch.optim.Adam


class Guard:
    """Answers train requests for one client.

    Args:
        client_id: stable name of the client.
        users: whose data the client holds; its ledger must be theirs.
        open_shard: reads the client's data; called once, after the first reservation.
        num_classes: of the data set.
        config: how the critic is built and trained (of a simulated device: the run's settings).
        policy: the owner's limits, which a request can only stay within.
        folder: of the ledger and the critic's state, the client's own.
        noise_source: of a round; secure unless whoever builds the guard says otherwise.
    """

    def __init__(
        self,
        client_id: str,
        users: tuple[str, ...],
        open_shard: Callable[[], WriterShard],
        num_classes: int,
        config: Config,
        policy: DevicePolicy,
        folder: Path,
        noise_source: Callable[[int], NoiseSource] = lambda server_round: SecureNoise(),
    ) -> None:
        self._client_id = client_id
        self._open_shard = open_shard
        self._num_classes = num_classes
        self._config = config
        self._policy = policy
        self._folder = folder
        self._noise_source = noise_source
        self._ledger = Ledger(folder / LEDGER, users, policy)
        self._seeds = SeedStream(config.run.seed)
        self._persistent = config.critic.critic_state == "persistent"
        self._tested = False

    def answer(self, request: TrainRequest) -> TrainReply:
        """Train the critic on the samples and return the sanitized gradient: one round, whole.

        Raises:
            Refusal: as ``answering``.
        """
        return answer_alone(self.answering(request))

    def answering(self, request: TrainRequest) -> Answering[TrainReply]:
        """Do the round's steps in their order; only the critic's task is carried out elsewhere.

        A request that was answered before gets the identical bytes again, at no charge, as long as
        they are kept; after that the policy decides whether it is a new release.

        Raises:
            Refusal: refused by name, from the request, the policy and the ledger alone, before any
                data was read; nothing was charged.
        """
        event = check_request(request, self._policy, self._num_classes)
        with held(self._folder / ANSWERING, ANSWERING_PATIENCE_SECONDS):
            key = ReleaseKey(request.experiment_id, request.server_round, request.hash())
            slots = CriticSlots(self._folder, request.experiment_id)
            if (released := slots.released(key, request.reply_shape())) is not None:
                return _reply(request, SanitizedGradient(values_BCHW=released, event=event))
            self._require_working_sanitizer()
            self._ledger.reserve(key, event)  # refused, or on disk, before any data is read

            critic_after, gradients_BCHW = yield from self._train(request, slots)
            with timed("sanitize"):
                noise_source = self._noise_source(request.server_round)
                values = to_release_basis(gradients_BCHW, request.dct_frequencies)
                sanitized = sanitize(values, event, noise_source)
            del gradients_BCHW, values
            self._seal(key, critic_after, sanitized, slots, request.checkpoint_round)
        return _reply(request, sanitized)

    def _train(
        self, request: TrainRequest, slots: CriticSlots
    ) -> Answering[tuple[CriticVector | None, np.ndarray]]:
        """Return the critic to keep and the sample gradient, private; zeros if anything fails.

        Whether training fails can depend on the data, so a failure must look like any other reply:
        it is noted on the device, and the zeros are noised like a gradient.
        """
        try:
            with timed("critic"):
                critic = self._critic_before(request.server_round, slots)
                kept = None if self._persistent else to_vector(*critic)
                samples_NBCHW, labels_NB = map(_tensor, request.critic_batches())
                task = CriticTask(
                    *critic,
                    self._shard,
                    samples_NBCHW,
                    labels_NB,
                    _tensor(request.samples_BCHW),
                    _tensor(request.labels_B),
                    self._config.critic,
                    self._stream("critic-training", request.server_round),
                )
            gradients_BCHW = yield task
            return kept or to_vector(*critic), gradients_BCHW.numpy()
        except Exception:
            note_failure(self._folder)
            return None, np.zeros_like(request.samples_BCHW)

    def _critic_before(self, server_round: int, slots: CriticSlots) -> Critic:
        """Return the critic as the last round before this one left it, or a new one.

        Under ``critic-state = snapshot`` what a round leaves is the critic it began with, so that
        none depends on how often its client took part; only then does sampling amplify.
        """
        config = self._config
        seed = self._seeds.torch_seed("critic-weights", client_id=self._client_id)
        network = build_critic(config.critic, self._num_classes, seed)
        critic = Critic(network, critic_optimizer(network, config.critic, config.adam))
        state = slots.before(server_round)
        if state is not None and state.optimizer_steps > 0:
            try:
                from_vector(*critic, state.parameters, state.optimizer_steps)
                return critic
            except ValueError as error:  # the owner chose another critic since
                logger.warning("%s; it begins anew", error)
        randomness = self._stream("warm-start", 0)
        classes = self._num_classes
        warm_start(*critic, self._shard, classes, config.critic, config.adam, randomness)
        return critic

    def _seal(
        self,
        key: ReleaseKey,
        critic: CriticVector | None,
        sanitized: SanitizedGradient,
        slots: CriticSlots,
        checkpoint_round: int,
    ) -> None:
        """Keep critic and released bytes, so that asking again costs nothing; no room is no error.

        What is not kept is trained and charged again when it is asked for again.
        """
        try:
            if critic is None:  # training failed: the reply is kept all the same, or a repeat tells
                before = slots.before(key.server_round)
                critic = (np.array(before.parameters), before.optimizer_steps) if before else None
            parameters, steps = critic or (np.empty((3, 0), np.float32), 0)
            released = sanitized.values_BCHW.reshape(-1)
            state = CriticState(key.server_round, steps, parameters, key.request_hash, released)
            slots.store(state, checkpoint_round)
        except Exception:
            note_failure(self._folder)

    def _require_working_sanitizer(self) -> None:
        require_randomness()
        if not self._tested:
            selftest(self._noise_source(0))
            self._tested = True

    @cached_property
    def _shard(self) -> WriterShard:
        return self._open_shard()

    def _stream(self, purpose: str, server_round: int) -> np.random.Generator:
        return self._seeds.generator(purpose, server_round, self._client_id)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Return a copy: however an array lies in memory, PyTorch takes it, and never writes to it."""
    return torch.from_numpy(np.array(array))


def _reply(request: TrainRequest, gradient: SanitizedGradient) -> TrainReply:
    return TrainReply(server_round=request.server_round, gradient=gradient)
