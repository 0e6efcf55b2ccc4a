"""Submits runs to a SuperLink, one at a time: the one before is stopped first.

Flower keeps the run of a ServerApp that was killed for another minute, and starts the app of a run
anew whenever it does not come up within 30 s: on a machine too busy for that, runs would pile up.
"""

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.flower_commands import run_command, stop_command
from fed_gswgan.settings import Value

logger = logging.getLogger(__name__)

STARTED = re.compile(r"started run (\d+)")


class Submission:
    """Submits with ``flwr``.

    Args:
        flwr: runs a command line and returns its output; RuntimeError if it fails.
    """

    def __init__(self, flwr: Callable[[list[str]], str]) -> None:
        self._flwr = flwr
        self._run_id: str | None = None

    def submit(self, app: Path, run_config: Mapping[str, Value]) -> None:
        """Send the app with these settings; its ServerApp starts a little later."""
        if self._run_id is not None:
            run_id, self._run_id = self._run_id, None
            try:
                self._flwr(stop_command(run_id))
            except RuntimeError:
                logger.debug("run %s had ended", run_id)
        found = STARTED.search(self._flwr(run_command(app, run_config)))
        self._run_id = found.group(1) if found else None
