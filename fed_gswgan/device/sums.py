"""A guard's part in sums: the five messages of a device, its state on disk before each leaves.

A round is attempted once, ever. Only the masked release charges the ledger, reads data and adds
noise; the phases before and after it do neither. What was lost is not sent again: the device has
then dropped out of the sum, which goes on without it.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fed_gswgan.algorithms.base import ClientView
from fed_gswgan.device.guard import Guard
from fed_gswgan.privacy.durable import connect, database, transaction
from fed_gswgan.privacy.refusals import (
    ClientFailed,
    LedgerUnavailable,
    MalformedInput,
    Refusal,
    Replay,
)
from fed_gswgan.secure_aggregation.protocol import Device, Phase, Round
from fed_gswgan.wire.encoding import pack_words
from fed_gswgan.wire.messages import RELEASED, Request, encode_refusal
from fed_gswgan.wire.sum_messages import Announcement, SumMessage

logger = logging.getLogger(__name__)

ROUNDS = "rounds.db"
_TABLES = """
CREATE TABLE rounds (
    client TEXT, experiment TEXT, server_round INTEGER, phase INTEGER, state TEXT, request BLOB,
    PRIMARY KEY (client, experiment, server_round)
);
"""


class Sums:
    """Answers the phases of secure aggregation for one client of a guard.

    Args:
        guard: has folder, ledger, policy and algorithm.
        device: the client's part in the protocol, with its identity and roster.
    """

    def __init__(self, guard: Guard, device: Device) -> None:
        self._guard, self._device = guard, device

    @staticmethod
    def create(folder: Path) -> None:
        """Make the file that remembers rounds, if there is none; without it no phase is answered.

        It may only be called before a client's first round.
        """
        if not (folder / ROUNDS).exists():
            with database(folder / ROUNDS, create=True) as rounds:
                rounds.executescript(_TABLES)

    def answer(self, blob: bytes, client: ClientView) -> bytes:
        """Answer a message of the server: a message of the protocol, or a refusal by code.

        Guarantees:
            * What the device must remember is on disk before the answer is returned.
            * The ledger is charged and data is read for the masked release alone, and by then the
              shares of enough peers have been opened and checked.
            * Whose budget is spent says so in the first phase, and is in nobody's way.
            * Whether it fails does not depend on data: a failure while computing is answered with
              noise alone, under the same masks.
        """
        try:
            message = SumMessage.decode(blob)
            with self._rounds() as rounds:
                return RELEASED + self._answer(
                    _Remembered(rounds, message, client), message, client
                )
        except Refusal as refusal:
            logger.warning("refused: %s: %s", refusal.name, refusal)
            return encode_refusal(refusal)
        except Exception:  # what failed is not told: even its kind may depend on data
            self._guard.note_failure()
            return encode_refusal(ClientFailed("failed"))

    def _answer(self, remembered: "_Remembered", message: SumMessage, client: ClientView) -> bytes:
        device, body = self._device, message.body
        if message.phase == Phase.KEYS:
            announced = Announcement.decode(body)
            request = self._request(announced.request, message)
            self._guard.require_budget(request, client)
            begun, sent = device.keys(announced.terms(request))
            remembered.begin(begun, announced.request)
            return sent
        state, blob = remembered.read()
        if message.phase == Phase.SHARES:
            state, sent = device.shares(state, body)
        elif message.phase == Phase.MASKED:
            state = device.receive(state, body)
            remembered.keep(state)
            request = self._request(blob, message)
            steps = self._guard.release_once(request, client)
            masked = device.masked(state, steps)
            payload = pack_words(masked, request.modulus_bits)
            return payload + device.sign_masked(state, payload)
        elif message.phase == Phase.SURVIVORS:
            state, sent = device.sign_survivors(state, body)
        else:
            state, sent = device.unmask(state, body)
        remembered.keep(state)
        return sent

    def _request(self, blob: bytes, message: SumMessage) -> Request:
        request = Request.decode(blob)
        named = message.experiment_id, message.server_round
        if (request.experiment_id, request.server_round) != named:
            raise MalformedInput(f"the request must be of the round that is named, {named}")
        if not request.modulus_bits:
            raise MalformedInput("the request must be under trust=secure-aggregation")
        return request

    @contextmanager
    def _rounds(self) -> Iterator[sqlite3.Connection]:
        try:
            rounds = connect(self._guard.folder / ROUNDS)
        except (OSError, sqlite3.Error) as error:
            raise LedgerUnavailable(f"{self._guard.folder / ROUNDS}: {error}") from error
        try:
            rounds.execute("PRAGMA synchronous = FULL")
            rounds.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
            yield rounds
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"{self._guard.folder / ROUNDS}: {error}") from error
        finally:
            rounds.close()


class _Remembered:
    """What is on disk of one client's round."""

    def __init__(self, rounds: sqlite3.Connection, message: SumMessage, client: ClientView) -> None:
        self._rounds = rounds
        self._key = client.client_id, message.experiment_id, message.server_round

    def begin(self, state: Round, request: bytes) -> None:
        """Remember a new round; what older ones kept secret is forgotten, which ends them.

        Raises:
            Replay: the round was begun before.
        """
        try:
            with transaction(self._rounds):
                self._rounds.execute(
                    "UPDATE rounds SET state = NULL, request = NULL WHERE client = ?", self._key[:1]
                )
                self._rounds.execute(
                    "INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?)",
                    (*self._key, state.phase, state.to_json(), request),
                )
        except sqlite3.IntegrityError as error:
            raise Replay("the round was begun before; it is attempted once") from error

    def read(self) -> tuple[Round, bytes]:
        """Return the state, and the request that was announced.

        Raises:
            Replay: the round was not begun, or is over.
        """
        row = self._rounds.execute(
            "SELECT state, request FROM rounds WHERE client = ? AND experiment = ? AND "
            "server_round = ?",
            self._key,
        ).fetchone()
        if row is None or row[0] is None:
            raise Replay("the round was not begun here, or is over")
        return Round.from_json(row[0]), row[1]

    def keep(self, state: Round) -> None:
        """Replace the state of the phase before; after the last phase no secret is kept.

        Raises:
            Replay: another process has gone on.
        """
        over = state.phase == Phase.UNMASKED
        with transaction(self._rounds):
            changed = self._rounds.execute(
                "UPDATE rounds SET phase = ?, state = ? WHERE client = ? AND experiment = ? AND "
                "server_round = ? AND phase = ? AND state IS NOT NULL",
                (state.phase, None if over else state.to_json(), *self._key, state.phase - 1),
            )
            if changed.rowcount != 1:
                raise Replay("the message of this phase was sent before")
