"""The guard: the one object between a server and a client's data.

A request goes in; a sanitized gradient or a refusal comes out. Data, critic and ledger stay behind
it, in every runtime.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fed_gswgan.config import Config
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.device.critic_vector import from_vector, to_vector
from fed_gswgan.device.request_check import check_request
from fed_gswgan.models.build import build_critic
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.noise_source import NoiseSource, SecureNoise, SeededNoise
from fed_gswgan.privacy.sanitizer import release_event, sanitize
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.critic_training import critic_optimizer, train_critic
from fed_gswgan.training.sample_gradient import sample_gradient
from fed_gswgan.training.warm_start import warm_start
from fed_gswgan.wire.messages import TrainReply, TrainRequest


class Guard:
    """Answers train requests for one client.

    Args:
        client_id: stable name of the client.
        open_shard: reads the client's data; called once, after the first reservation.
        num_classes: of the data set.
        config: the device's own settings; nothing in a request overrides them.
        folder: of the ledger and the critic's state, the client's own.
    """

    def __init__(
        self,
        client_id: str,
        open_shard: Callable[[], WriterShard],
        num_classes: int,
        config: Config,
        folder: Path,
    ) -> None:
        self._client_id = client_id
        self._open_shard = open_shard
        self._num_classes = num_classes
        self._config = config
        self._ledger = Ledger(folder / "ledger.jsonl", config.budget)
        self._slots = CriticSlots(folder)
        self._seeds = SeedStream(config.run.seed)

    def answer(self, request: TrainRequest) -> TrainReply:
        """Train the critic on the samples and return the sanitized gradient: one round, whole.

        A request that was answered before gets the identical bytes again, at no charge.

        Raises:
            MalformedRequestError: refused before any data was read; nothing was charged.
            PrivacyBudgetExhausted: refused by the ledger before any data was read.
        """
        check_request(request, self._config.cohort, self._num_classes)
        key = ReleaseKey(request.experiment_id, request.server_round, request.hash())
        if (released := self._released_before(key, request)) is not None:
            return released
        event = release_event(len(request.samples_BCHW), self._config.sanitizer)
        self._ledger.reserve(key, event)  # refused, or on disk, before any data is read

        config = self._config
        critic, optimizer = self._critic_before(request.server_round)
        samples_NBCHW, labels_NB = map(torch.from_numpy, request.critic_batches())
        randomness = self._stream("critic-training", request.server_round)
        train_critic(
            critic, optimizer, self._shard, samples_NBCHW, labels_NB, config.critic, randomness
        )
        samples_BCHW, labels_B = map(torch.from_numpy, (request.samples_BCHW, request.labels_B))
        gradients_BCHW = sample_gradient(critic, samples_BCHW, labels_B).numpy()
        noise_source = self._noise_source(request.server_round)
        sanitized = sanitize(gradients_BCHW, config.sanitizer, noise_source)
        del gradients_BCHW
        released_BCHW = sanitized.values_BCHW
        self._seal(key, critic, optimizer, released_BCHW, request.checkpoint_round)
        return TrainReply(server_round=request.server_round, gradient_BCHW=released_BCHW)

    def _released_before(self, key: ReleaseKey, request: TrainRequest) -> TrainReply | None:
        """Return the reply that this very request got, if its bytes are still here."""
        state = self._slots.at(key.server_round)
        if state is None or state.key != key.request_hash:
            return None
        gradient = state.reply.reshape(request.samples_BCHW.shape).copy()
        return TrainReply(server_round=key.server_round, gradient_BCHW=gradient)

    def _critic_before(self, server_round: int) -> tuple[nn.Module, torch.optim.Adam]:
        """Return the critic as the last round before this one left it, or a new one."""
        seed = self._seeds.torch_seed("critic-weights", client_id=self._client_id)
        critic = build_critic(self._config.critic, self._num_classes, seed)
        optimizer = critic_optimizer(critic, self._config.critic, self._config.adam)
        state = self._slots.before(server_round)
        if state is not None:
            from_vector(critic, optimizer, state.parameters, state.optimizer_steps)
        else:
            warm_start(
                critic,
                optimizer,
                self._shard,
                self._num_classes,
                self._config.critic,
                self._config.adam,
                self._stream("warm-start", 0),
            )
        return critic, optimizer

    def _seal(
        self,
        key: ReleaseKey,
        critic: nn.Module,
        optimizer: torch.optim.Adam,
        released_BCHW: np.ndarray,
        checkpoint_round: int,
    ) -> None:
        """Keep the critic and the released bytes, so that asking again costs nothing."""
        parameters, steps = to_vector(critic, optimizer)
        state = CriticState(
            key.server_round, steps, parameters, key.request_hash, released_BCHW.reshape(-1)
        )
        self._slots.store(state, checkpoint_round)

    @cached_property
    def _shard(self) -> WriterShard:
        return self._open_shard()

    def _noise_source(self, server_round: int) -> NoiseSource:
        if self._config.sanitizer.noise_source == "seeded":
            return SeededNoise(self._stream("noise", server_round))
        return SecureNoise()

    def _stream(self, purpose: str, server_round: int) -> np.random.Generator:
        return self._seeds.generator(purpose, server_round, self._client_id)
