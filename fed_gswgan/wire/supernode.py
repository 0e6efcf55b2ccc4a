"""Flower's SuperNode, which looks for work more often, and ends where it would stay a reply behind.

    Usage: python -m fed_gswgan.wire.supernode ARGUMENTS, those of ``flower-supernode``

Flower 1.39 looks for a message every 3 s, for a message's process every second, and for its reply
every half second, and has a setting for the second of these alone.

A run may end while the SuperNode fetches one of its messages, as when the server crashed. The
SuperNode gives that message up but keeps it queued; minutes later it has an answer to it, sends
that in place of the next one, and from then on holds every reply back until another message comes.
The server then waits for each in vain. What runs it (systemd, a container, ``deploy``) starts it
again, and nothing is lost: ledger and critic are the guard's.
"""

import logging
import os
import signal
import time
from types import SimpleNamespace

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

LOOK_FASTER = 3  # every second for a message: more would be load on a SuperLink of many devices
PROCESS_SECONDS = "0.2"  # on the device alone

# As flwr.supernode.start_client_internal logs it, before it is formatted.
GAVE_UP = "Run ID %s is not in `RUNNING` status. Ignoring message %s."


def main() -> None:
    """Run the SuperNode until it is told to end, or gives a message up."""
    look_more_often()
    logging.getLogger("flwr").addFilter(end_when_given_up)
    flower_supernode()


def look_more_often() -> None:
    """Shorten the pauses of the SuperNode's loop, and those of the helper that starts processes."""
    os.environ.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", PROCESS_SECONDS)
    hasty = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / LOOK_FASTER))
    vars(start_client_internal)["time"] = hasty  # all that it does with time is to sleep


def end_when_given_up(record: logging.LogRecord) -> bool:
    """Ask this process to end, once it says that it gave a message up; every record passes."""
    if record.msg == GAVE_UP:
        signal.raise_signal(signal.SIGTERM)  # Flower says goodbye to the server on this one
    return True


if __name__ == "__main__":
    main()
