"""Send messages and collect the replies, polling often: Flower's own loop sleeps up to 3 s."""

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
    """Push all messages and return the replies that came within ``timeout_seconds``.

    A straggler's reply is left where it is. The pause between pulls grows from 5 ms to a hundredth
    of the time waited, so that a long round does not spend its time asking.
    """
    pending = set(grid.push_messages(messages))
    replies: list[Message] = []
    started = time.monotonic()
    while pending and not interrupted():
        arrived = list(grid.pull_messages(pending))
        replies += arrived
        pending -= {reply.metadata.reply_to_message_id for reply in arrived}
        waited = time.monotonic() - started
        if waited > timeout_seconds:
            break
        if pending:
            time.sleep(min(max(POLL_SECONDS, waited / 100), LONGEST_POLL_SECONDS))
    return replies
