"""Hardened Grid, a workaround for Flower 1.39: no device can hold up or end the others' round.

Flower fetches a reply's parts until all are there, for minutes where a device announced more than
it sends, and ends with the first reply that it cannot read: both stop the server, and lose the
replies that came with it. It also believes who a reply says it is from.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.run import Run
from flwr.superlink.grid.http_grid import HttpGrid

from fed_gswgan.wire.message_types import CLIENT_FAILED


def expired(message: Message) -> bool:
    """Tell whether a message's time to live is over."""
    return message.metadata.created_at + message.metadata.ttl < time.time()


LARGEST_REPLY_BYTES = 2**28
MOST_PARTS = 256  # an array of that size comes in some fifty


def hardened(grid: Grid) -> Grid:
    """Return a hardened Grid in place of one on a network, and a simulation's as it is."""
    return HardenedGrid(grid) if isinstance(grid, HttpGrid) else grid


class _NotYet(Exception):
    """A part was announced and not uploaded so far."""


@dataclass
class _Arriving:
    """A reply whose parts are not all there.

    Attributes:
        message_id: its own.
        asked: the message it answers.
        missing: object ids of the parts that are not there.
        parts: object id to content.
    """

    message_id: str
    asked: Message
    missing: set[str]
    parts: dict[str, bytes] = field(default_factory=dict)


class HardenedGrid(Grid):
    """Stands before Flower's Grid and fetches the replies itself.

    Args:
        grid: Flower's.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self._grid = grid
        self._asked: dict[str, Message] = {}  # without content, by message id
        self._arriving: dict[str, _Arriving] = {}  # by the id of the message they answer

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower's older way."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push the messages and return their ids; None for one that could not be pushed."""
        messages = list(messages)
        message_ids = list(self._grid.push_messages(messages))
        for message_id, asked in list(self._asked.items()):
            if expired(asked):  # nobody answers it any more
                del self._asked[message_id]
                self._arriving.pop(message_id, None)
        for message_id, message in zip(message_ids, messages, strict=True):
            if message_id:
                self._asked[message_id] = _without_content(message)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, those replies that are there whole; the others are asked for again.

        One that cannot be read, is too large, or is not from the node that was asked comes as an
        error reply of that node.
        """
        wanted = set(message_ids)
        # What was announced once is, as the SuperLink sees it, delivered, and no message any more.
        unannounced = (wanted & self._asked.keys()) - self._arriving.keys()
        request = PullAppMessagesRequest(message_ids=unannounced)
        found = self._grid._runtime_client.PullMessages(request)
        for message, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            metadata = message.metadata
            if (asked := self._asked.get(metadata.reply_to_message_id)) is None:
                continue
            parts = {part.object_id for part in iterate_object_tree(tree)}
            self._arriving[metadata.reply_to_message_id] = _Arriving(
                metadata.message_id, asked, parts
            )
        replies = {i: self._fetch(self._arriving[i]) for i in wanted & self._arriving.keys()}
        whole = {message_id: reply for message_id, reply in replies.items() if reply is not None}
        for message_id in whole:
            del self._arriving[message_id], self._asked[message_id]
        return list(whole.values())

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Not used: ``server.collect.exchange`` pushes and pulls."""
        raise NotImplementedError("push, then pull")

    def _fetch(self, arriving: _Arriving) -> Message | None:
        """Return a reply, or the error that takes its place; None if parts are still missing."""
        try:
            if (count := len(arriving.missing) + len(arriving.parts)) > MOST_PARTS:
                raise ValueError(f"reply of {count} parts, must have at most {MOST_PARTS}")
            pull_objects(list(arriving.missing), partial(self._part, arriving))
            reply = _read(arriving)
        except _NotYet:
            return None
        except (ObjectPullError, ValueError) as error:
            reply = Message(Error(CLIENT_FAILED, str(error)), reply_to=arriving.asked)
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node,
                run_id=self._grid.run.run_id,
                message_object_id=arriving.message_id,
            )
        )
        return reply

    def _part(self, arriving: _Arriving, object_id: str) -> bytes:
        """Put a part of a reply where it belongs; _NotYet where one would have to wait for it."""
        found = self._grid._runtime_client.PullObject(
            PullObjectRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, object_id=object_id
            )
        )
        if not found.object_found:
            raise ObjectPullError(object_id, "it was announced and is not there")
        if not found.object_available:
            raise _NotYet
        arriving.parts[object_id] = found.object_content
        arriving.missing.discard(object_id)
        if (size := sum(map(len, list(arriving.parts.values())))) > LARGEST_REPLY_BYTES:
            raise ValueError(f"reply-bytes={size} must be <= {LARGEST_REPLY_BYTES}")
        return b""


def _read(arriving: _Arriving) -> Message:
    """Return the reply; ValueError if it is none, or says that it is another's.

    For a node that is gone the SuperLink answers, with an error under its own node id.
    """
    try:
        reply = inflate_object_from_contents(arriving.message_id, arriving.parts)
    except Exception as error:  # a device chose these bytes, and Flower parses them
        raise ValueError(f"reply that cannot be read: {type(error).__name__}") from error
    if not isinstance(reply, Message):
        raise ValueError(f"reply that is no message but {type(reply).__name__}")
    asked, said = arriving.asked.metadata, reply.metadata
    senders = {asked.dst_node_id, SUPERLINK_NODE_ID} if reply.has_error() else {asked.dst_node_id}
    if said.src_node_id not in senders or said.reply_to_message_id != asked.message_id:
        raise ValueError(
            f"reply that says it is node {said.src_node_id}'s; node {asked.dst_node_id} was asked"
        )
    said.__dict__["_message_id"] = arriving.message_id
    return reply


def _without_content(message: Message) -> Message:
    return Message(metadata=message.metadata, content=RecordDict())  # type: ignore[call-overload,no-any-return]
