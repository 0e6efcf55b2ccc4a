"""The guard of a device whose owner trusts the server: a clipped update without noise comes out.

It answers only where the owner's policy says ``trusted-server = true``. Ledger, lock and policy are
those of ``Guard``.

P and Q: numbers in the state vectors of generator and critic.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from fed_gswgan.config import Config
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.device.client_folder import ANSWERING, LEDGER, note_failure
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.device.guard import ANSWERING_PATIENCE_SECONDS
from fed_gswgan.device.update_check import check_update_request
from fed_gswgan.models.build import build_critic, build_generator
from fed_gswgan.models.state_vector import load_state_vector
from fed_gswgan.privacy.clipped_update import ClippedUpdate, clip_update
from fed_gswgan.privacy.durable_file import held
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.critic_update import critic_update
from fed_gswgan.wire.update_messages import UpdateReply, UpdateRequest


class UpdateGuard:
    """Answers FedAvg-GAN's requests for one client; its arguments are those of ``Guard``."""

    def __init__(
        self,
        client_id: str,
        users: tuple[str, ...],
        open_shard: Callable[[], WriterShard],
        num_classes: int,
        config: Config,
        policy: DevicePolicy,
        folder: Path,
    ) -> None:
        self._client_id = client_id
        self._open_shard = open_shard
        self._num_classes = num_classes
        self._config = config
        self._policy = policy
        self._folder = folder
        self._ledger = Ledger(folder / LEDGER, users, policy)
        self._seeds = SeedStream(config.run.seed)

    def answer(self, request: UpdateRequest) -> UpdateReply:
        """Train the critic that was sent and return its clipped update: one round, whole.

        Raises:
            Refusal: refused by name, from the request, the policy and the ledger alone, before any
                data was read; nothing was charged.
        """
        generator, critic = self._networks
        event = check_update_request(request, self._policy, generator, critic)
        with held(self._folder / ANSWERING, ANSWERING_PATIENCE_SECONDS):
            key = ReleaseKey(request.experiment_id, request.server_round, request.hash())
            slots = CriticSlots(self._folder, request.experiment_id)
            if (released := slots.released(key, request.critic_Q.shape)) is not None:
                update = ClippedUpdate(values_P=released, event=event)
                return UpdateReply(server_round=request.server_round, update=update)
            self._ledger.reserve(key, event)  # refused, or on disk, before any data is read

            update = clip_update(self._train(request), event)
            self._keep(key, update, slots)
        return UpdateReply(server_round=request.server_round, update=update)

    def _train(self, request: UpdateRequest) -> np.ndarray:
        """Return the critic's update, private; zeros if anything fails."""
        generator, critic = self._networks
        try:
            load_state_vector(generator, request.generator_P)
            load_state_vector(critic, request.critic_Q)
            return critic_update(
                critic,
                generator,
                self._shard,
                self._num_classes,
                self._config.cohort.batch_size,
                self._config.critic,
                self._config.generator,
                self._seeds.generator("critic-update", request.server_round, self._client_id),
            )
        except Exception:
            note_failure(self._folder)
            return np.zeros_like(request.critic_Q)

    def _keep(self, key: ReleaseKey, update: ClippedUpdate, slots: CriticSlots) -> None:
        """Keep the released bytes, so that asking again costs nothing; no room is no error."""
        try:
            nothing = np.empty((3, 0), np.float32)
            state = CriticState(key.server_round, 0, nothing, key.request_hash, update.values_P)
            slots.store(state, checkpoint_round=0)
        except Exception:
            note_failure(self._folder)

    @cached_property
    def _networks(self) -> tuple[nn.Module, nn.Module]:
        classes = self._num_classes
        return (
            build_generator(self._config.generator, classes, seed=0),
            build_critic(self._config.critic, classes, seed=0),
        )

    @cached_property
    def _shard(self) -> WriterShard:
        return self._open_shard()
