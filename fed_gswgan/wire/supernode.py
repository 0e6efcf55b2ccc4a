"""Flower's SuperNode, which ends where Flower 1.39 leaves it a reply behind, to be started again.

    Usage: python -m fed_gswgan.wire.supernode ARGUMENTS, those of ``flower-supernode``

A run may end while the SuperNode fetches one of its messages, as when the server crashed. The
SuperNode gives that message up but keeps it queued; minutes later it has an answer to it, sends
that in place of the next one, and from then on holds every reply back until another message comes.
The server then waits for each in vain. What runs it (systemd, a container, ``deploy``) starts it
again, and nothing is lost: ledger and critic are the guard's.
"""

import logging
import signal

from flwr.supernode.cli import flower_supernode

# As flwr.supernode.start_client_internal logs it, before it is formatted.
GAVE_UP = "Run ID %s is not in `RUNNING` status. Ignoring message %s."


def main() -> None:
    """Run the SuperNode until it is told to end, or gives a message up."""
    logging.getLogger("flwr").addFilter(end_when_given_up)
    flower_supernode()


def end_when_given_up(record: logging.LogRecord) -> bool:
    """Ask this process to end, once it says that it gave a message up; every record passes."""
    if record.msg == GAVE_UP:
        signal.raise_signal(signal.SIGTERM)  # Flower says goodbye to the server on this one
    return True


if __name__ == "__main__":
    main()
