"""Reads a round's replies: checks, counts, decodes; nothing a client sends stops a round."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, RecordDict

from fed_gswgan.strangers_text import one_line
from fed_gswgan.wire.byte_meter import RoundBytes
from fed_gswgan.wire.messages import MalformedReplyError

logger = logging.getLogger(__name__)


@dataclass
class Replies:
    """The arrays of well-formed replies by client id, and how many other replies there were."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    failed: int = 0
    malformed: int = 0

    @property
    def arrived(self) -> int:
        """Replies of any kind."""
        return len(self.values) + self.failed + self.malformed


def read_replies(
    messages: Iterable[Message],
    clients: Mapping[int, str],
    decode: Callable[[RecordDict], np.ndarray],
    round_bytes: RoundBytes,
    server_round: int,
) -> Replies:
    """Return what can be combined; an error or a malformed reply is counted, logged and dropped.

    Args:
        messages: as they arrived.
        clients: node id to client id, of those who were asked.
        decode: returns the array of a reply, or raises MalformedReplyError.
        round_bytes: counts every reply with content, well-formed or not.
        server_round: that was asked.
    """
    replies = Replies()
    for message in messages:
        node_id = message.metadata.src_node_id
        if message.has_error():
            replies.failed += 1
            # For a node that is gone the SuperLink answers, under its own node id.
            sender = clients.get(node_id, "the SuperLink")
            logger.warning("round %d: %s: %s", server_round, sender, said(message.error.reason))
            continue
        client_id = clients.get(node_id, f"node {node_id}")
        try:
            if node_id not in clients:
                raise MalformedReplyError("reply dropped: nobody asked it")
            round_bytes.received(client_id, message.content)
            if client_id in replies.values:
                raise MalformedReplyError("reply dropped: it answered already")
            replies.values[client_id] = decode(message.content)
        except MalformedReplyError as error:
            replies.malformed += 1
            logger.warning("round %d: %s: %s", server_round, client_id, one_line(str(error)))
    return replies


def said(reason: str | None) -> str:
    """Return the reason that an error gives, as a line of the log."""
    return one_line(reason or "no reason given")
