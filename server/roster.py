"""Who is there: which client is reached at which node, while nodes vanish, return and join.

With node authentication a node id belongs to a key and survives restarts; without it, a restarted
node is a new one. Asking a node for its client id does not depend on anybody's data.
"""

import logging
import time
from bisect import insort
from collections.abc import Iterable, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fed_gswgan.wire.byte_meter import ByteMeter
from fed_gswgan.wire.message_types import REGISTER
from fed_gswgan.wire.release_guard import LONGEST_CLIENT_ID
from server.reply_reading import said

logger = logging.getLogger(__name__)

ANSWER_PATIENCE_SECONDS = 60.0  # a node that gave no id is asked again after so long


class Roster:
    """The population of a run, as ``server.nodes.Nodes`` has it.

    A client keeps its node as long as that is there. A client id that another node claims is given
    to it once the first is gone, and to nobody while several claim it.

    Args:
        nodes: client id to node id, of those who registered at the start.
        byte_meter: counts both halves of a later registration.

    Attributes:
        nodes: client id to node id, of everybody who ever registered.
    """

    def __init__(self, nodes: Mapping[str, int], byte_meter: ByteMeter) -> None:
        self.nodes = dict(nodes)
        self._client_ids = sorted(nodes)
        self._byte_meter = byte_meter
        self._claims = {node_id: client_id for client_id, node_id in nodes.items()}
        self._asked: dict[int, float] = {}
        self._pending: set[str] = set()
        self._disputed: set[str] = set()

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, position: int) -> str:
        return self._client_ids[position]

    def node_id(self, client_id: str) -> int:
        """Return where a client answers, or last did."""
        return self.nodes[client_id]

    def refresh(self, grid: Grid) -> frozenset[str]:
        """Look who is there, ask new nodes for their client ids, and return who is absent.

        Does not wait: an answer is taken in by a later call.
        """
        online = set(grid.get_node_ids())
        if self._pending:
            self._take(list(grid.pull_messages(self._pending)))
        if not self._claims.keys() >= online:
            self._ask(grid, online - self._claims.keys())
        if len(self._claims) > len(self.nodes):
            self._settle(online)
        if online.issuperset(self.nodes.values()):
            return frozenset()
        return frozenset(c for c, node_id in self.nodes.items() if node_id not in online)

    def _ask(self, grid: Grid, strangers: Iterable[int]) -> None:
        now = time.monotonic()
        unasked = [
            node_id
            for node_id in strangers
            if now - self._asked.get(node_id, float("-inf")) > ANSWER_PATIENCE_SECONDS
        ]
        if not unasked:
            return
        self._asked |= dict.fromkeys(unasked, now)
        questions = [registration(node_id, ANSWER_PATIENCE_SECONDS) for node_id in unasked]
        for question in questions:
            self._byte_meter.registration(question.content)
        self._pending |= {message_id for message_id in grid.push_messages(questions) if message_id}

    def _take(self, replies: Iterable[Message]) -> None:
        for reply in replies:
            self._pending.discard(reply.metadata.reply_to_message_id)
            if (client_id := answered_id(reply, self._byte_meter)) is not None:
                self._claims[reply.metadata.src_node_id] = client_id

    def _settle(self, online: set[int]) -> None:
        """Give clients whose node is gone, or who have none yet, the one node that claims them."""
        holders = set(self.nodes.values())
        claimants: dict[str, list[int]] = {}
        for node_id in (self._claims.keys() & online) - holders:
            claimants.setdefault(self._claims[node_id], []).append(node_id)
        for client_id, node_ids in claimants.items():
            if self.nodes.get(client_id) in online or len(node_ids) > 1:
                if client_id not in self._disputed:
                    self._disputed.add(client_id)
                    logger.warning(
                        "client-id=%r must be unique: another node that is there gives it too, "
                        "and is not asked",
                        client_id,
                    )
                continue
            known = client_id in self.nodes
            self.nodes[client_id] = node_ids[0]
            if not known:
                insort(self._client_ids, client_id)
            logger.info("%s %s", client_id, "is back, at another node" if known else "joined")


def registration(node_id: int, ttl_seconds: float) -> Message:
    """Return the question for a node's client id; not delivered any more once it is so old."""
    content = RecordDict({"config": ConfigRecord({"ask": "client-id"})})
    return Message(content, node_id, REGISTER, ttl=ttl_seconds)


def answered_id(reply: Message, byte_meter: ByteMeter) -> str | None:
    """Return the client id in a node's answer; None, saying so, if there is none."""
    node_id = reply.metadata.src_node_id
    if reply.has_error():
        logger.warning("node %s did not register: %s", node_id, said(reply.error.reason))
        return None
    byte_meter.registration(reply.content)
    config = reply.content.get("config")
    client_id = config.get("client-id") if isinstance(config, ConfigRecord) else None
    if isinstance(client_id, str) and 0 < len(client_id) <= LONGEST_CLIENT_ID:
        return client_id
    logger.warning("node %s gave no client-id; left out", node_id)
    return None
