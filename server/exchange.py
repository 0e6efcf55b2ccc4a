"""Exchange of one round's messages over a Grid; Flower's own loop sleeps up to 3 s."""

import time
from collections.abc import Callable, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.2


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    timeout_seconds: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Message]:
    """Push the messages and return the replies that arrive within ``timeout_seconds``.

    A late reply stays in the Grid. A reply to none of the messages is dropped. The pause between
    pulls grows from 5 ms to a hundredth of the time waited, at most 0.2 s.

    Args:
        grid: reaches the nodes.
        messages: at most one for each node.
        timeout_seconds: counted from the push.
        interrupted: ends the waiting once it returns True.
    """
    started = time.monotonic()
    # Flower returns None for a message that could not be pushed: it gets no reply.
    pushed = grid.push_messages(messages) if messages else []
    pending = {message_id for message_id in pushed if message_id}
    replies: list[Message] = []
    while pending and not interrupted():
        for reply in grid.pull_messages(set(pending)):
            if reply.metadata.reply_to_message_id in pending:
                pending.remove(reply.metadata.reply_to_message_id)
                replies.append(reply)
        waited = time.monotonic() - started
        if waited > timeout_seconds:
            break
        if pending:
            time.sleep(min(max(POLL_SECONDS, waited / 100), LONGEST_POLL_SECONDS))
    return replies
