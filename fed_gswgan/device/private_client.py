"""One client's data and folder, and the one way that anything made from them is released.

Whatever is asked for goes the same steps: one request at a time; the bytes of before, if it was
answered before; else a reservation on disk before any data is read; and the released bytes kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.device.client_folder import ANSWERING, LEDGER, note_failure
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.privacy.durable_file import held
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.seeding import SeedStream

ANSWERING_PATIENCE_SECONDS = 60.0

CriticVector = tuple[np.ndarray, int]
NO_CRITIC: CriticVector = (np.empty((3, 0), np.float32), 0)


class Release:
    """One request of one client on its way out; ``PrivateClient.release`` makes it.

    Attributes:
        slots: the client's critic in this experiment.
        kept_values: what this very request was answered, float32; None if that is not kept.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        key: ReleaseKey,
        event: SanitizedGradientEvent,
        shape: tuple[int, ...],
    ) -> None:
        self._folder, self._ledger, self._key, self._event = folder, ledger, key, event
        self.slots = CriticSlots(folder, key.experiment_id)
        self.kept_values = self.slots.released(key, shape)

    def reserve(self) -> None:
        """Charge the client's users; Refusal if the ledger or its policy do not allow it."""
        self._ledger.reserve(self._key, self._event)

    def keep(
        self, values: np.ndarray, critic: CriticVector | None = None, checkpoint_round: int = 0
    ) -> None:
        """Keep released bytes and critic, so that asking again costs nothing; no room is no error.

        What is not kept is made and charged again when it is asked for again.

        Args:
            values: that are released, float32.
            critic: as ``to_vector`` returns it; None: the one of before, and the bytes all the
                same, or a repeat would tell that training failed.
            checkpoint_round: whose critic the server may still fall back to.
        """
        key = self._key
        try:
            if critic is None:
                before = self.slots.before(key.server_round)
                critic = (before.parameters.copy(), before.optimizer_steps) if before else NO_CRITIC
            parameters, steps = critic
            released = values.reshape(-1)
            state = CriticState(key.server_round, steps, parameters, key.request_hash, released)
            self.slots.store(state, checkpoint_round)
        except Exception:
            note_failure(self._folder)


class PrivateClient:
    """What the guards of one client stand before.

    Args:
        client_id: stable name of the client.
        users: whose data the client holds; its ledger must be theirs.
        open_shard: reads the client's data; called once, after the first reservation.
        num_classes: of the data set.
        config: how the critic is built and trained (of a simulated device: the run's settings).
        policy: the owner's limits, which a request can only stay within.
        folder: of the ledger and the critic's state, the client's own.
    """

    def __init__(
        self,
        client_id: str,
        users: tuple[str, ...],
        open_shard: Callable[[], ClientDataset],
        num_classes: int,
        config: Config,
        policy: DevicePolicy,
        folder: Path,
    ) -> None:
        self.client_id = client_id
        self.num_classes = num_classes
        self.config = config
        self.policy = policy
        self.folder = folder
        self._open_shard = open_shard
        self._ledger = Ledger(folder / LEDGER, users, policy)
        self._seeds = SeedStream(config.run.seed)

    @contextmanager
    def release(
        self, key: ReleaseKey, event: SanitizedGradientEvent, shape: tuple[int, ...]
    ) -> Iterator[Release]:
        """Let nobody else answer for this client meanwhile.

        Args:
            key: of the request.
            event: what its reply costs.
            shape: of the values in the reply.

        Raises:
            Refusal: LedgerLocked or LedgerUnavailable.
        """
        with held(self.folder / ANSWERING, ANSWERING_PATIENCE_SECONDS):
            yield Release(self.folder, self._ledger, key, event, shape)

    @cached_property
    def shard(self) -> ClientDataset:
        """The client's data, private; read on the first use, which a reservation precedes."""
        return self._open_shard()

    def randomness(self, purpose: str, server_round: int) -> np.random.Generator:
        """Return this client's generator for a purpose in a round."""
        return self._seeds.generator(purpose, server_round, self.client_id)

    def torch_seed(self, purpose: str) -> int:
        """Return this client's seed for networks made for a purpose."""
        return self._seeds.torch_seed(purpose, client_id=self.client_id)
