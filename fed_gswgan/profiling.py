"""Where time goes, by phase: written to files of this machine, and only where a simulation asks.

The environment variable ``FED_GSWGAN_PROFILE`` names a folder; each process appends to a file of
its own there. How long a client takes may depend on its data: times go into no reply, and no
message and no run config can switch this on.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROFILE_FOLDER = "FED_GSWGAN_PROFILE"


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """Note how long the block took, exceptions included; nothing where no profile is asked for."""
    folder = os.environ.get(PROFILE_FOLDER)
    if not folder:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        _note(Path(folder), phase, time.perf_counter() - started)


def process_name() -> str:
    """Return the name of this process among those of all machines."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _note(folder: Path, phase: str, seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{process_name()}.jsonl").open("a") as file:
        file.write(json.dumps([phase, seconds]) + "\n")
