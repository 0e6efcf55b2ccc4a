"""Send messages and collect the replies, polling often: Flower's own loop sleeps up to 3 s.

Several batches may be on their way. A node takes part in one at a time: what a later batch has for
it waits until the older one has ended, so that a client trains its critic in the order of the
rounds, and can be asked again about the last of them alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.2


@dataclass
class Batch:
    """Messages that were sent together.

    Attributes:
        node_ids: whom they are for.
        held: those that were not pushed yet.
        pending: ids of those that were pushed and have no reply yet.
        replies: as they arrived.
    """

    node_ids: frozenset[int]
    held: list[Message]
    pending: set[str] = field(default_factory=set)
    replies: list[Message] = field(default_factory=list)


class Exchange:
    """Batches of messages on their way over a Grid, collected in the order they were sent.

    Args:
        grid: reaches the nodes.
        interrupted: ends the waiting.
    """

    def __init__(self, grid: Grid, interrupted: Callable[[], bool] = lambda: False) -> None:
        self.grid = grid
        self._interrupted = interrupted
        self._batches: list[Batch] = []

    def send(self, messages: Sequence[Message]) -> Batch:
        """Push the messages whose nodes are free; the rest follows when older batches ended."""
        node_ids = frozenset(message.metadata.dst_node_id for message in messages)
        batch = Batch(node_ids, list(messages))
        self._batches.append(batch)
        self._push()
        return batch

    def collect(self, batch: Batch, timeout_seconds: float) -> list[Message]:
        """Return the replies to the oldest batch that come within ``timeout_seconds`` from now.

        A straggler's reply is left where it is; what answers none of the messages is dropped. The
        pause between pulls grows from 5 ms to a hundredth of the time waited, so that a long round
        does not spend its time asking.
        """
        started = time.monotonic()
        self._push()
        while batch.pending and not self._interrupted():
            self._pull()
            waited = time.monotonic() - started
            if waited > timeout_seconds:
                break
            if batch.pending:
                time.sleep(min(max(POLL_SECONDS, waited / 100), LONGEST_POLL_SECONDS))
        self._batches.remove(batch)  # what waited for its end is pushed by the next call
        return batch.replies

    def _push(self) -> None:
        taken: frozenset[int] = frozenset()
        for batch in self._batches:
            free = [m for m in batch.held if m.metadata.dst_node_id not in taken]
            batch.held = [m for m in batch.held if m.metadata.dst_node_id in taken]
            taken |= batch.node_ids
            # Flower gives None for a message that could not be pushed: nobody will answer it.
            batch.pending |= {i for i in self.grid.push_messages(free) if i} if free else set()

    def _pull(self) -> None:
        waiting = {message_id: batch for batch in self._batches for message_id in batch.pending}
        for reply in self.grid.pull_messages(set(waiting)):
            batch = waiting.pop(reply.metadata.reply_to_message_id, None)
            if batch is not None:
                batch.pending.remove(reply.metadata.reply_to_message_id)
                batch.replies.append(reply)


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    timeout_seconds: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Message]:
    """Send one batch, collect it, and return the replies; see ``Exchange``."""
    letters = Exchange(grid, interrupted)
    return letters.collect(letters.send(messages), timeout_seconds)
