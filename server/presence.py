"""Before anybody is asked: are enough clients there for the generator to move?

Whoever is asked is charged, so nobody is asked for nothing.
"""

import time
from collections.abc import Callable

from flwr.serverapp import Grid

from fed_gswgan.config import CohortConfig
from server.nodes import Nodes

PRESENCE_POLL_SECONDS = 1.0


class RunStalled(RuntimeError):
    """Too few clients answer for the generator to move, while everybody asked is charged."""


def wait_for_clients(
    grid: Grid,
    nodes: Nodes,
    config: CohortConfig,
    interrupted: Callable[[], bool] = lambda: False,
) -> frozenset[str] | None:
    """Wait until a step is possible and return who is absent; None if interrupted.

    Raises:
        RunStalled: after a time-out's time fewer than ``min-replies`` clients are there.
    """
    wanted, patience_seconds = config.min_replies, config.reply_timeout_seconds
    started = time.monotonic()
    while True:
        absent = nodes.refresh(grid)
        present = len(nodes) - len(absent)
        if present >= wanted:
            return absent
        if interrupted():
            return None
        if time.monotonic() - started > patience_seconds:
            raise RunStalled(
                f"only {present} of {len(nodes)} clients are there, min-replies={wanted}; "
                f"waited {patience_seconds:g} s for the others"
            )
        time.sleep(PRESENCE_POLL_SECONDS)
