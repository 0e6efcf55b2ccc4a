"""A Grid that calls the ClientApp in this very process: no workers, no polling, no copies.

It touches private parts of Flower: a Message reads the process-wide TaskIdentity, and a message's
id is set by whoever delivers it. ``tests/simulations/test_in_process_grid.py`` pins both.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fed_gswgan.flat_table import Value
from fed_gswgan.wire.grid_in_front import expired
from fed_gswgan.wire.message_types import CLIENT_FAILED

logger = logging.getLogger(__name__)

SERVER_NODE_ID = 1
FIRST_NODE_ID = 2  # of the clients
RUN_ID = 1


class InProcessGrid(Grid):
    """Runs each message when it is pushed and keeps the reply until it is pulled.

    Args:
        client_app: called for every message.
        num_nodes: virtual nodes; that of partition-id ``i`` is ``FIRST_NODE_ID + i``. A node's
            context is made when a message comes, and kept if the app leaves something in its state.
        run_config: every context's.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: Mapping[str, Value],
    ) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
        TaskIdentity.node_id = SERVER_NODE_ID
        self._client_app = client_app
        self._run = Run.create_empty(run_id=RUN_ID)
        self._replies: dict[str, Message] = {}
        self._pushed = 0
        self._node_ids = range(FIRST_NODE_ID, FIRST_NODE_ID + num_nodes)
        self._run_config = dict(run_config)
        self._contexts: dict[int, Context] = {}

    def set_run(self, run: Run) -> None:
        """Set the run; it names nothing that matters here."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower's older way."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the virtual nodes."""
        return self._node_ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer every message at once and return their ids."""
        message_ids = []
        for message in messages:
            message_ids.append(self._name(message))
            if message.metadata.dst_node_id not in self._node_ids:
                self._replies[message_ids[-1]] = no_such_node(message)
                continue
            context = self.context(message.metadata.dst_node_id)
            self._replies[message_ids[-1]] = answer(self._client_app, message, context)
            self._keep(context)
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, the replies to these messages."""
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push and pull."""
        return self.pull_messages(self.push_messages(messages))

    def context(self, node_id: int) -> Context:
        """Return what a node's ClientApp is called with; ValueError if there is no such node."""
        return self._contexts.get(node_id) or Context(
            run_id=RUN_ID,
            node_id=node_id,
            node_config={
                "partition-id": self._node_ids.index(node_id),
                "num-partitions": len(self._node_ids),
            },
            state=RecordDict(),
            run_config=self._run_config,
        )

    def _keep(self, context: Context) -> None:
        if context.state:
            self._contexts[context.node_id] = context

    def _name(self, message: Message) -> str:
        """Give a message its id."""
        self._pushed += 1
        message_id = f"message-{self._pushed}"
        message.metadata.__dict__["_message_id"] = message_id
        return message_id


def no_such_node(message: Message) -> Message:
    """Return the error that answers a message to nobody."""
    return Message(Error(CLIENT_FAILED, "no such node"), reply_to=message)


def answer(
    client_app: Callable[[Message, Context], Message], message: Message, context: Context
) -> Message:
    """Return the app's reply; a client's failure is one too, as in every other runtime."""
    try:
        return client_app(message, context)
    except Exception:
        logger.exception("client failed")
        return Message(Error(CLIENT_FAILED, "client failed"), reply_to=message)


def drop_expired(replies: MutableMapping[str, Message]) -> None:
    """Drop what nobody pulled in its time to live, as Flower's SuperLink does: stragglers' replies.

    Args:
        replies: by the id of the message they answer.
    """
    for message_id, reply in list(replies.items()):
        if expired(reply):
            del replies[message_id]


def delivered(metadata: Metadata, content: RecordDict) -> Message:
    """Return a message as it arrives in another process."""
    return Message(metadata=metadata, content=content)  # type: ignore[call-overload,no-any-return]
