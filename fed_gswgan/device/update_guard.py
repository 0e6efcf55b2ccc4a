"""The guard of a device whose owner trusts the server: a clipped update without noise comes out.

It answers only where the owner's policy says ``trusted-server = true``. Ledger, lock and policy are
those of ``Guard``.

P and Q: numbers in the state vectors of generator and critic.
"""

from functools import cached_property

import numpy as np
from torch import nn

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.client_folder import note_failure
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.device.update_check import check_update_request
from fed_gswgan.models.registry import build_critic, build_generator, load_state_vector
from fed_gswgan.privacy.clipped_update import ClippedUpdate, clip_update
from fed_gswgan.training.critic_update import critic_update
from fed_gswgan.wire.update_messages import UpdateReply, UpdateRequest


class UpdateGuard:
    """Answers FedAvg-GAN's requests for one client.

    Args:
        client: whom it stands before.
    """

    def __init__(self, client: PrivateClient) -> None:
        self._client = client

    def answer(self, request: UpdateRequest) -> UpdateReply:
        """Train the critic that was sent and return its clipped update: one round, whole.

        Raises:
            Refusal: refused by name, from the request, the policy and the ledger alone, before any
                data was read; nothing was charged.
        """
        generator, critic = self._networks
        event = check_update_request(request, self._client.policy, generator, critic)
        with self._client.release(request.key(), event, request.critic_Q.shape) as release:
            if (kept := release.kept_values) is not None:
                return _reply(request, ClippedUpdate(values_P=kept, event=event))
            release.reserve()  # refused, or on disk, before any data is read

            update = clip_update(self._train(request), event)
            release.keep(update.values_P)
        return _reply(request, update)

    def _train(self, request: UpdateRequest) -> np.ndarray:
        """Return the critic's update, private; zeros if anything fails."""
        generator, critic = self._networks
        config = self._client.config
        try:
            load_state_vector(generator, request.generator_P)
            load_state_vector(critic, request.critic_Q)
            return critic_update(
                critic,
                generator,
                self._client.shard,
                self._client.num_classes,
                config.cohort.batch_size,
                config.critic,
                config.generator,
                self._client.randomness("critic-update", request.server_round),
            )
        except Exception:
            note_failure(self._client.folder)
            return np.zeros_like(request.critic_Q)

    @cached_property
    def _networks(self) -> tuple[nn.Module, nn.Module]:
        config, spec = self._client.config, DataSpec(IMAGE_SHAPE, self._client.num_classes)
        return (
            build_generator(config.generator, spec, seed=0),
            build_critic(config.critic, spec, seed=0),
        )


def _reply(request: UpdateRequest, update: ClippedUpdate) -> UpdateReply:
    return UpdateReply(server_round=request.server_round, update=update)
