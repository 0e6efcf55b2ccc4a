"""The guard: between a server and the data of one device, or of a shard of simulated clients.

Bytes of a request go in; a release or a refusal of each client comes out, as bytes. Data, state and
ledger stay behind it, for every algorithm, trust model and runtime.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fed_gswgan.algorithms.base import Client, ClientView, State, Update
from fed_gswgan.privacy.ledger import Ledger, Reservation
from fed_gswgan.privacy.mechanism import Event, privatize
from fed_gswgan.privacy.noise import NoiseSource, SecureNoise
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.privacy.refusals import (
    ClientFailed,
    MalformedInput,
    Refusal,
    Replay,
    RequestExceedsPolicy,
)
from fed_gswgan.privacy.selftest import require_randomness, selftest
from fed_gswgan.wire.messages import Request, encode_refusal, encode_release

logger = logging.getLogger(__name__)

FAILURES = "failures.log"
LARGEST_FAILURES_BYTES = 2**20
NOISE_ALONE = "answered with noise alone:"  # experiment id, round and client follow


@dataclass
class Guard:
    """Answers requests of one algorithm for the clients of one folder.

    Attributes:
        folder: of ledger, replies and states.
        owners: ``owners_hash`` of all clients of the folder and their users.
        algorithm: name of the algorithm whose requests are answered.
        client: its client half.
        policy: the owner's limits.
        noise: the noise of a client in a round; secure unless the caller replaces it.
        simulated: whether the ideal form of secure aggregation is answered, in which the server is
            trusted to sum; replies need not be on disk before they leave.
        seeded: whether noise is, so that a lost reply is computed anew, to the same bytes.
    """

    folder: Path
    owners: str
    algorithm: str
    client: Client
    policy: Policy
    noise: Callable[[str, int], NoiseSource] = lambda client_id, server_round: SecureNoise()
    simulated: bool = False
    seeded: bool = False
    _tested: bool = field(default=False, init=False)

    def answer(self, blob: bytes, clients: Sequence[ClientView]) -> list[bytes]:
        """Answer a request for each client: a release, or a refusal by code.

        Guarantees:
            * Decided from the request, the policy and the ledger alone, and on disk, before any
              data is read.
            * A request that was answered before gets the identical release again, at no charge,
              as long as it is kept.
            * A failure while computing is answered with noise alone: whether it happens can depend
              on the data. The log of failures, which stays on the device, names the client.
        """
        try:
            return self._answer(blob, clients)
        except Refusal as refusal:
            logger.warning("refused: %s: %s", refusal.name, refusal)
            return [encode_refusal(refusal)] * len(clients)
        except Exception:  # what failed is not told: even its kind may depend on data
            self.note_failure()
            return [encode_refusal(ClientFailed("failed"))] * len(clients)

    def require_budget(self, request: Request, client: ClientView) -> None:
        """Refuse now what ``release_once`` would refuse by policy and budget; nothing is charged.

        Raises:
            Refusal: as ``answer`` would send it.
        """
        charge = self.check(request, masked=True)
        with Ledger(self.folder, self.owners, durable=not self.simulated) as ledger:
            ledger.require_newest(self.policy)
            for spent in ledger.releases(client.users).values():
                self.policy.admit_spending(spent, charge)

    def release_once(self, request: Request, client: ClientView) -> np.ndarray:
        """Charge a release that leaves under masks, compute it, and return its grid steps.

        It is not kept: asked for again, it is refused.

        Raises:
            Refusal: as ``answer`` would send it.
        """
        charge = self.check(request, masked=True)
        self._require_working_mechanism()
        users = {client.client_id: client.users}
        with Ledger(self.folder, self.owners, durable=not self.simulated) as ledger:
            reserved = ledger.reserve(users, request.key, charge, self.policy)
            if not reserved.todo:
                raise reserved.refused.get(client.client_id, Replay("answered before"))
            ((client_id, steps, state),) = self._releases(ledger, request, [client])
            self._store(ledger, request, [(client_id, None, state)])
        return steps

    def _answer(self, blob: bytes, clients: Sequence[ClientView]) -> list[bytes]:
        request = Request.decode(blob)
        charge = self.check(request)
        self._require_working_mechanism()
        views = {client.client_id: client for client in clients}
        if len(views) < len(clients):
            raise MalformedInput("a client is named twice")
        with Ledger(self.folder, self.owners, durable=not self.simulated) as ledger:
            users = {client_id: view.users for client_id, view in views.items()}
            reserved = ledger.reserve(users, request.key, charge, self.policy, self.seeded)
            made: dict[str, bytes] = {}
            to_keep = []
            todo = [views[client_id] for client_id in reserved.todo]
            for client_id, steps, state in self._releases(ledger, request, todo):
                made[client_id] = encode_release(steps, request)
                # A reply whose noise is seeded is computed anew instead.
                to_keep.append((client_id, None if self.seeded else steps, state))
            self._store(ledger, request, to_keep)
        return [self._encoded(request, client_id, reserved, made) for client_id in views]

    def check(self, request: Request, masked: bool = False) -> Event:
        """Return what a release costs, if the request is one that this guard answers.

        Args:
            request: of a server.
            masked: whether the release leaves under masks that hide it from the server.

        Raises:
            RequestExceedsPolicy, MalformedInput: it is not.
        """
        if request.algorithm != self.algorithm:
            raise RequestExceedsPolicy(
                f"algorithm={request.algorithm} must be {self.algorithm}, which the owner chose"
            )
        charge = self.policy.charge(request.event)
        if request.event.trust == "secure-aggregation" and not (self.simulated or masked):
            raise RequestExceedsPolicy(
                "secure-aggregation in its ideal form is for simulations: a device refuses it, "
                "since the server would see each release with one client's share of noise"
            )
        event = request.event
        asked = event.rows, event.numbers, event.extra, event.bounded
        if asked != (shape := tuple(self.client.release(request.server_round))):
            raise MalformedInput(f"release of {asked} must be {shape}, by the client's settings")
        try:
            self.client.check(request)
        except ValueError as error:
            raise MalformedInput(str(error)) from error
        return charge

    def _releases(
        self, ledger: Ledger, request: Request, clients: Sequence[ClientView]
    ) -> Iterator[tuple[str, np.ndarray, bytes | None]]:
        """Yield the grid steps and the new state of each client, whose users are charged."""
        for view in clients:
            view.state = self._state_of(ledger.state_before(view.client_id, request.key))
        for view, (update, state) in zip(clients, self._compute(request, clients), strict=True):
            noise = self.noise(view.client_id, request.server_round)
            steps = privatize(update.rows_RN, update.extra_E, request.event, noise)
            yield view.client_id, steps, state

    def _state_of(self, kept: bytes | None) -> State | None:
        """Return a state that was kept; None for a damaged one, so that its client begins anew."""
        try:
            return None if kept is None else load(kept)
        except Exception:
            self.note_failure()
            return None

    def _compute(
        self, request: Request, clients: Sequence[ClientView]
    ) -> Iterator[tuple[Update, bytes | None]]:
        """Yield each client's update and state; zeros and the old state where computing fails."""
        event = request.event
        zeros = Update(np.zeros((event.rows, event.numbers)), np.zeros(event.extra))
        together = getattr(self.client, "updates", None)
        found: Sequence[Update | Exception] | None = None
        if together is not None and clients:
            try:
                found = together(request, clients)
            except Exception:
                self._note_noise_alone(request, clients)
                found = [zeros] * len(clients)
        for position, client in enumerate(clients):
            try:
                update = found[position] if found else self.client.update(request, client)
                if isinstance(update, Exception):
                    raise update
                for found_array, zero in zip(update[:2], zeros[:2], strict=True):
                    if found_array.shape != zero.shape or found_array.dtype.kind != "f":
                        raise ValueError(f"update of {found_array.dtype} {found_array.shape}")
                made = update, _bytes_of(update.state)
            except Exception:
                self._note_noise_alone(request, [client])
                made = zeros, None
            yield made

    def _store(
        self,
        ledger: Ledger,
        request: Request,
        answers: Sequence[tuple[str, np.ndarray | None, bytes | None]],
    ) -> None:
        """Keep replies and states; no room is no error: a repeat is then charged anew."""
        try:
            ledger.store(request.key, request.oldest_round, answers)
        except Exception:
            self.note_failure()

    def _encoded(
        self, request: Request, client_id: str, reserved: Reservation, made: Mapping[str, bytes]
    ) -> bytes:
        if (refusal := reserved.refused.get(client_id)) is not None:
            logger.warning("refused: %s: %s", refusal.name, refusal)
            return encode_refusal(refusal)
        kept = reserved.kept.get(client_id)
        return made[client_id] if kept is None else encode_release(kept, request)

    def _require_working_mechanism(self) -> None:
        require_randomness()
        if not self._tested:
            selftest(self.noise("selftest", 0))
            self._tested = True

    def note_failure(self) -> None:
        """Append the exception at hand to the failure log, which stays on the device."""
        note_failure(self.folder)

    def _note_noise_alone(self, request: Request, clients: Sequence[ClientView]) -> None:
        """Note the exception at hand, and whose answers hold nothing but noise for it."""
        named = f"{NOISE_ALONE} {request.experiment_id} {request.server_round}"
        lines = [f"{named} {client.client_id}\n" for client in clients]
        note_failure(self.folder, "".join(lines))


def note_failure(folder: Path, lines: str = "") -> None:
    """Append lines and the exception at hand to the failure log in ``folder`` of the device.

    A log that is full begins anew.
    """
    path = folder / FAILURES
    try:
        full = path.exists() and path.stat().st_size > LARGEST_FAILURES_BYTES
        with open(path, "w" if full else "a") as log:
            path.chmod(0o600)
            log.write(lines)
            traceback.print_exc(file=log)
    except OSError:
        logger.exception("a failure could not be noted")


def _bytes_of(state: State | None) -> bytes | None:
    return None if state is None else save({n: np.ascontiguousarray(t) for n, t in state.items()})
