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

    A straggler's reply is left where it is; what answers none of these messages is dropped. The
    pause between pulls grows from 5 ms to a hundredth of the time waited, so that a long round does
    not spend its time asking.
    """
    # Flower gives None for a message that could not be pushed: nobody was asked, nobody answers.
    pending = {message_id for message_id in grid.push_messages(messages) if message_id}
    replies: list[Message] = []
    started = time.monotonic()
    while pending and not interrupted():
        for reply in grid.pull_messages(pending):
            if reply.metadata.reply_to_message_id in pending:
                pending.remove(reply.metadata.reply_to_message_id)
                replies.append(reply)
        waited = time.monotonic() - started
        if waited > timeout_seconds:
            break
        if pending:
            time.sleep(min(max(POLL_SECONDS, waited / 100), LONGEST_POLL_SECONDS))
    return replies
