"""Registry of clients: which node answers for which client, while nodes vanish, return and join.

A node registers under a name: a device under its client id, which is the hash of a key that it
proves to have, a node of a simulation under the name of the shard that it hosts. With node
authentication a node id belongs to a key of Flower's and survives restarts; without it, a restarted
node is a new one. Asking a node for its name does not depend on any client's data.
"""

import logging
import secrets
import time
from bisect import insort
from collections.abc import Callable, Iterable, Sequence

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fed_gswgan.device.shards import SimulatedClients, shard_name, shard_of
from fed_gswgan.reporting.logs import one_line
from fed_gswgan.secure_aggregation.keys import client_id_of, proven
from fed_gswgan.wire.message_types import ASK, CHALLENGE, NAME, PROOF, RECORD, REGISTER
from server.collect import exchange

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0  # for nodes to appear; one that comes later joins the run then
ANSWER_PATIENCE_SECONDS = 60.0  # a node that gave no name is asked again after so long
LONGEST_NAME = 64
CHALLENGE_BYTES = 32
POLL_SECONDS = 1.0


class RunStalled(RuntimeError):
    """Too few clients answer for the run to go on, while each that is asked is charged."""


class ClientRegistry(Sequence[str]):
    """The population of a run: its client ids, sorted, and the node of each.

    A name keeps its node as long as that is there. A name that another node claims is given to it
    once the first is gone, and to none while several claim it.

    Args:
        grid: reaches the nodes.
        simulated: the clients of a simulation, whose ids are known; None: devices.
        interrupted: True once the run shall end.

    Attributes:
        registration_bytes: payload of all registrations, both halves.
    """

    def __init__(
        self,
        grid: Grid,
        simulated: SimulatedClients | None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._grid, self._simulated, self._interrupted = grid, simulated, interrupted
        self._nodes: dict[str, int] = {}  # by name
        self._names: list[str] = []  # sorted
        self._claims: dict[int, str] = {}
        self._challenges: dict[int, bytes] = {}
        self._asked: dict[int, float] = {}
        self._pending: set[str] = set()
        self._disputed: set[str] = set()
        self.registration_bytes = 0
        self._keys: dict[str, bytes] = {}  # of devices

    def __len__(self) -> int:
        return len(self._clients)

    def __getitem__(self, position):  # type: ignore[no-untyped-def]  # as Sequence has it
        return self._clients[position]

    def node_id(self, client_id: str) -> int:
        """Return the node that answers for a client, or last did."""
        return self._nodes[self._home(client_id)]

    def key(self, client_id: str) -> bytes:
        """Return the public key by which peers know a client."""
        if self._simulated is None:
            return self._keys[client_id]
        return self._simulated.identity(client_id).public

    def register(self, expected: int, timeout_seconds: float) -> None:
        """Wait for the nodes, ask each for its name, and keep the names that one node alone gave.

        Args:
            expected: nodes to wait for before asking.
            timeout_seconds: for the nodes to appear, and again for their answers.

        Raises:
            RunStalled: uninterrupted, no node answered, or a shard has none.
        """
        node_ids = self._wait_for_nodes(expected, min(timeout_seconds, LONGEST_WAIT_SECONDS))
        questions = [self._question(node_id, timeout_seconds) for node_id in node_ids]
        for reply in exchange(self._grid, questions, timeout_seconds, self._interrupted):
            self._take(reply)
        self._settle(set(node_ids))
        if self._interrupted():
            return
        if not self._nodes:
            raise RunStalled(f"no client registered: {len(node_ids)} nodes were asked")
        if self._simulated:
            shards = {shard_name(shard) for shard in range(self._simulated.shards)}
            if missing := sorted(shards - self._nodes.keys()):
                raise RunStalled(
                    f"{', '.join(missing)} did not register: {len(shards)} nodes must host the "
                    "shards of this run"
                )

    def absent(self, wanted: int, timeout_seconds: float) -> frozenset[str] | None:
        """Wait until so many clients are there, and return those that are not; None: interrupted.

        Each client that is asked is charged, so none is asked while too few are there.

        Raises:
            RunStalled: after the time-out fewer clients are there.
        """
        started = time.monotonic()
        while True:
            absent = self._refresh()
            present = len(self) - len(absent)
            if present >= wanted:
                return absent
            if self._interrupted():
                return None
            if time.monotonic() - started > timeout_seconds:
                raise RunStalled(
                    f"only {present} of {len(self)} clients are there, min-replies={wanted}; "
                    f"waited {timeout_seconds:g} s for the others"
                )
            time.sleep(POLL_SECONDS)

    @property
    def _clients(self) -> Sequence[str]:
        return self._simulated.client_ids if self._simulated else self._names

    def _home(self, client_id: str) -> str:
        if self._simulated is None:
            return client_id
        return shard_name(shard_of(client_id, self._simulated.shards))

    def _refresh(self) -> frozenset[str]:
        """Look who is there and ask new nodes for their names; an answer is taken in later."""
        online = set(self._grid.get_node_ids())
        if self._pending:
            for reply in self._grid.pull_messages(self._pending):
                self._pending.discard(reply.metadata.reply_to_message_id)
                self._take(reply)
        if not self._claims.keys() >= online:
            self._ask(online - self._claims.keys())
        if len(self._claims) > len(self._nodes):
            self._settle(online)
        if online.issuperset(self._nodes.values()):
            return frozenset()
        gone = {name for name, node_id in self._nodes.items() if node_id not in online}
        if self._simulated is None:
            return frozenset(gone)
        return frozenset(client for client in self._clients if self._home(client) in gone)

    def _wait_for_nodes(self, expected: int, timeout_seconds: float) -> list[int]:
        started, told = time.monotonic(), False
        while True:
            node_ids = list(self._grid.get_node_ids())
            waited = time.monotonic() - started
            if len(node_ids) >= expected or waited > timeout_seconds or self._interrupted():
                return node_ids
            if waited > 2 and not told:
                logger.warning(
                    "%d of %d nodes are there; waiting up to %g s for the others",
                    len(node_ids), expected, timeout_seconds,
                )  # fmt: skip
                told = True
            time.sleep(0.1)

    def _question(self, node_id: int, ttl_seconds: float) -> Message:
        challenge = self._challenges[node_id] = secrets.token_bytes(CHALLENGE_BYTES)
        content = RecordDict({RECORD: ConfigRecord({ASK: NAME, CHALLENGE: challenge})})
        self.registration_bytes += len(ASK) + len(NAME) + len(CHALLENGE) + CHALLENGE_BYTES
        return Message(content, node_id, REGISTER, ttl=ttl_seconds)

    def _ask(self, node_ids: Iterable[int]) -> None:
        now = time.monotonic()
        due = [n for n in node_ids if now - self._asked.get(n, -1e9) > ANSWER_PATIENCE_SECONDS]
        self._asked |= dict.fromkeys(due, now)
        questions = [self._question(node_id, ANSWER_PATIENCE_SECONDS) for node_id in due]
        pushed = self._grid.push_messages(questions) if questions else ()
        self._pending |= {message_id for message_id in pushed if message_id}

    def _take(self, reply: Message) -> None:
        """Note the name in a node's answer, or say that there is none."""
        node_id = reply.metadata.src_node_id
        if reply.has_error():
            reason = one_line(reply.error.reason or "no reason given")
            logger.warning("node %s did not register: %s", node_id, reason)
            return
        record = reply.content.get(RECORD)
        answer = record if isinstance(record, ConfigRecord) else ConfigRecord()
        try:
            name = self._name(node_id, answer) if self._simulated else self._id(node_id, answer)
        except ValueError as error:
            logger.warning("node %s did not register: %s; left out", node_id, error)
            return
        self._claims[node_id] = name

    def _name(self, node_id: int, answer: ConfigRecord) -> str:
        name = answer.get(NAME)
        if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable():
            self.registration_bytes += len(NAME) + len(name.encode())
            return name
        raise ValueError("it gave no name")

    def _id(self, node_id: int, answer: ConfigRecord) -> str:
        """Return the client id of a device that proved to have the key."""
        proof, challenge = answer.get(PROOF), self._challenges.get(node_id)
        if not isinstance(proof, bytes) or challenge is None:
            raise ValueError("it gave no proof of who it is")
        public = proven(proof, challenge)
        self.registration_bytes += len(PROOF) + len(proof)
        client_id = client_id_of(public)
        self._keys[client_id] = public
        return client_id

    def _settle(self, online: set[int]) -> None:
        """Give names without a node, or whose node is gone, the one node that claims them."""
        holders = set(self._nodes.values())
        claimants: dict[str, list[int]] = {}
        for node_id in (self._claims.keys() & online) - holders:
            claimants.setdefault(self._claims[node_id], []).append(node_id)
        for name, node_ids in sorted(claimants.items()):
            if self._nodes.get(name) in online or len(node_ids) > 1:
                if name not in self._disputed:
                    self._disputed.add(name)
                    logger.error(
                        "client-id=%r must be unique: several nodes give it, and none but the one "
                        "that had it first is asked; give each device its own", name,
                    )  # fmt: skip
                continue
            known = name in self._nodes
            self._nodes[name] = node_ids[0]
            if not known:
                insort(self._names, name)
            if known:
                logger.info("%s is back, at another node", name)
