"""What lies in the folder of a client: its ledger, its failures, the lock of who answers for it."""

import contextlib
import os
import traceback
from pathlib import Path

LEDGER = "ledger.jsonl"
FAILURES = "failures.log"
ANSWERING = "answering.lock"


def note_failure(folder: Path) -> None:
    """Append the exception at hand to the failure log in ``folder``; it stays on the device."""
    with contextlib.suppress(OSError), open(folder / FAILURES, "a", opener=_private) as log:
        traceback.print_exc(file=log)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
