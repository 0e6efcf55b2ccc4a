"""Several clients a message on Flower's own simulation runtime, which neither app can see.

Flower looks for new messages ten times a second, hands each node one, and calls an actor for each:
tens of milliseconds a client. Here a few Flower nodes carry all virtual clients: ``PackedGrid``
takes and returns one message a client and sends packs of them, ``PackedClientApp`` opens a pack in
the actor and calls the shipped ClientApp for each client by itself, as the in-process runtime does.
The shipped app knows no packs: a real device refuses one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any, cast

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from client.app import app as client_app
from fed_gswgan.flat_table import Value
from fed_gswgan.wire.grid_in_front import GridInFront
from server.exchange import exchange
from simulations.in_process_grid import FIRST_NODE_ID, InProcessGrid, drop_expired

PACK = "train.pack"


class PackedGrid(GridInFront):
    """Stands before Flower's Grid: virtual clients on this side, packs on the other.

    The question is sent once a pack, so the clients of a pack must be asked the same.

    Args:
        grid: Flower's, whose nodes carry the packs.
        carriers: how many nodes it will have.
        num_clients: virtual clients, each a node on this side.
        clients_per_message: at most so many in a pack; 0: what is pushed at once is split evenly
            over the carriers.
    """

    def __init__(
        self, grid: Grid, carriers: int, num_clients: int, clients_per_message: int
    ) -> None:
        super().__init__(grid)
        self._carriers = carriers
        self._node_ids = range(FIRST_NODE_ID, FIRST_NODE_ID + num_clients)
        self._clients_per_message = clients_per_message
        self._packs: dict[str, list[Message]] = {}  # by the id of the message that carries them
        self._replies: dict[str, Message] = {}
        self._pushed = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the virtual clients' nodes; none before all that carry them are there."""
        return self._node_ids if len(self._carrying()) == self._carriers else []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pack the messages, push the packs, and return the messages' own ids."""
        drop_expired(self._replies)
        messages = list(messages)
        for message in messages:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = f"packed-{self._pushed}"
        packs = list(self._packs_of(messages))
        carrying = self._carrying()
        carriers = [carrying[position % len(carrying)] for position in range(len(packs))]
        sent = [_packed(pack, node_id) for pack, node_id in zip(packs, carriers, strict=True)]
        pack_ids = list(self._grid.push_messages(sent))
        self._packs |= dict(zip(pack_ids, packs, strict=True))
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, those replies that are there."""
        for reply in self._grid.pull_messages(list(self._packs)) if self._packs else []:
            pack = self._packs.pop(reply.metadata.reply_to_message_id)
            for message, answered in zip(pack, _unpacked(reply, len(pack)), strict=True):
                self._replies[message.metadata.message_id] = Message(answered, reply_to=message)
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, wait for all replies or the time-out, and pull."""
        return exchange(self, list(messages), math.inf if timeout is None else timeout)

    def _carrying(self) -> list[int]:
        return list(self._grid.get_node_ids())

    def _packs_of(self, messages: list[Message]) -> Iterator[list[Message]]:
        """Split runs of messages that ask the same into packs of about the same size."""
        for _, alike in groupby(messages, key=lambda m: (m.metadata.message_type, m.content)):
            members = list(alike)
            parts = min(self._carriers, len(members))
            if self._clients_per_message:
                parts = -(-len(members) // self._clients_per_message)
            yield from (members[start::parts] for start in range(parts))


class PackedClientApp(ClientApp):
    """The ClientApp for a whole pack of clients.

    Args:
        num_clients: virtual clients.
        run_config: every context's, which Flower's Python entry point leaves empty.
    """

    def __init__(self, num_clients: int, run_config: Mapping[str, Value]) -> None:
        super().__init__()
        self._num_clients = num_clients
        self._run_config = dict(run_config)

    def __call__(self, message: Message, context: Context) -> Message:
        """Ask each client by itself and return each one's reply, or its error."""
        grid = _clients(self._num_clients, tuple(self._run_config.items()))
        pack = message.content.config_records["pack"]
        content = RecordDict({n: r for n, r in message.content.items() if n != "pack"})
        kind, group = str(pack["message-type"]), str(pack["group-id"])
        node_ids = cast(list[int], pack["node-ids"])
        asked = [Message(content, node_id, kind, group_id=group) for node_id in node_ids]
        records: dict[str, Any] = {}
        for position, reply in enumerate(grid.send_and_receive(asked)):
            if reply.has_error():
                error = ConfigRecord({"code": reply.error.code, "reason": reply.error.reason or ""})
                records[f"{position}/error"] = error
            else:
                records |= {f"{position}/reply/{n}": r for n, r in reply.content.items()}
        return Message(RecordDict(records), reply_to=message)


@lru_cache(maxsize=1)  # an actor serves one run; it gets the app anew with every message
def _clients(num_clients: int, settings: tuple[tuple[str, Value], ...]) -> InProcessGrid:
    return InProcessGrid(client_app, num_clients, dict(settings))


def _packed(pack: list[Message], carrier: int) -> Message:
    first = pack[0]
    config = ConfigRecord({
        "message-type": first.metadata.message_type,
        "group-id": first.metadata.group_id,
        "node-ids": [message.metadata.dst_node_id for message in pack],
    })  # fmt: skip
    content = RecordDict({**first.content, "pack": config})
    return Message(content, carrier, PACK, ttl=first.metadata.ttl, group_id=first.metadata.group_id)


def _unpacked(reply: Message, count: int) -> list[RecordDict | Error]:
    """Return each client's answer; the pack's error is that of all its clients."""
    if reply.has_error():
        return [reply.error] * count
    answers: list[RecordDict | Error] = [RecordDict() for _ in range(count)]
    for name, record in reply.content.items():
        position, kind, *record_name = name.split("/", 2)
        answer = answers[int(position)]
        if kind == "error" and isinstance(record, ConfigRecord):
            error = Error(int(record["code"]), str(record["reason"]))  # type: ignore[arg-type]
            answers[int(position)] = error
        elif isinstance(answer, RecordDict):
            answer[record_name[0]] = record
    return answers
