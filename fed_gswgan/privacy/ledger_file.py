"""An append-only file of JSON lines that survives crashes and notices edits.

Each line carries the hash of the line before it. Whoever cannot read every line to the end, hash
by hash, gets ``LedgerUnavailable``: an unreadable ledger is an exhausted one. Lines cut from the
end as a whole, or an older copy put back, are outside this promise: nothing in the file can tell.
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT = "fed-gswgan-ledger/1"


class PrivacyBudgetExhausted(RuntimeError):
    """A release was refused before any data was read."""


class LedgerUnavailable(PrivacyBudgetExhausted):
    """The ledger is missing, damaged or not writable, which counts as exhausted."""


class LedgerFile:
    """A chained, durable, append-only file shared by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: dict[str, Any] = {}
        self.entries: list[dict[str, Any]] = []
        self._read_bytes = 0
        self._last_hash = ""
        self._descriptor = -1

    @classmethod
    def create(cls, path: Path, header: dict[str, Any]) -> "LedgerFile":
        """Create a ledger once, explicitly; after that a missing file is an exhausted budget.

        Raises:
            FileExistsError: there is one already; it is left as it is.
        """
        line, _ = _chain("", {"format": FORMAT, **header})
        draft, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        try:
            _write_durably(draft, line)
            os.link(name, path)  # in one piece, and only if there is none
        finally:
            os.close(draft)
            os.unlink(name)
        sync_folder(path.parent)
        return cls(path)

    def drop_incomplete_line(self) -> None:
        """Cut off a last line that a crash left incomplete: nothing was done on the strength of it.

        For the server's own count; a device's ledger stays unreadable until its owner looks.
        """
        if self.path.exists():
            data = self.path.read_bytes()
            os.truncate(self.path, data.rfind(b"\n") + 1)

    @contextmanager
    def locked(self) -> Iterator["LedgerFile"]:
        """Hold the exclusive lock, with everything any process wrote so far in ``entries``.

        Raises:
            LedgerUnavailable: the file is missing, cut, edited or not writable.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise LedgerUnavailable(
                f"ledger {self.path.name}: {error.strerror}; a ledger that cannot be opened "
                "counts as exhausted; restore it from a backup that is not older than the last "
                "reply"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._read_news(descriptor)
            self._descriptor = descriptor
            yield self
        finally:
            os.close(descriptor)  # releases the lock

    def append(self, entries: list[dict[str, Any]]) -> None:
        """Write the entries in one piece and return once they are on disk; needs the lock."""
        lines, last = b"", self._last_hash
        for entry in entries:
            line, last = _chain(last, entry)
            lines += line
        try:
            _write_durably(self._descriptor, lines)
        except OSError as error:
            os.ftruncate(self._descriptor, self._read_bytes)  # half a line would spoil the rest
            raise LedgerUnavailable(
                f"ledger {self.path.name}: {error.strerror}; nothing was released; make room or "
                "make it writable"
            ) from error
        self.entries += entries
        self._last_hash = last
        self._read_bytes += len(lines)

    def _read_news(self, descriptor: int) -> None:
        """Read and verify what was appended since the last look, by whichever process."""
        size = os.fstat(descriptor).st_size
        if size < self._read_bytes or size == 0:
            raise LedgerUnavailable(f"ledger {self.path.name} was cut; it counts as exhausted")
        news = os.pread(descriptor, size - self._read_bytes, self._read_bytes)
        if news and not news.endswith(b"\n"):
            raise LedgerUnavailable(
                f"ledger {self.path.name}: its last line is incomplete; it counts as exhausted"
            )
        for line in news.splitlines(keepends=True):
            entry = self._verified(line)
            if self._read_bytes == 0 and not self.header:
                self.header = entry
            else:
                self.entries.append(entry)
        self._read_bytes = size

    def _verified(self, line: bytes) -> dict[str, Any]:
        number = len(self.entries) + 2 if self.header else 1
        try:
            entry = json.loads(line)["entry"]
            written, expected = _chain(self._last_hash, entry)
            intact = line == written and isinstance(entry, dict)
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact or (number == 1 and entry.get("format") != FORMAT):
            raise LedgerUnavailable(
                f"ledger {self.path.name}: line {number} was altered or is no line of a ledger; "
                "it counts as exhausted"
            )
        self._last_hash = expected
        return dict(entry)


def _chain(previous_hash: str, entry: dict[str, Any]) -> tuple[bytes, str]:
    body = json.dumps(entry, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256((previous_hash + body).encode()).hexdigest()
    return (json.dumps({"entry": entry, "hash": digest}, sort_keys=True) + "\n").encode(), digest


def _write_durably(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(28, f"only {written} of {len(data)} bytes were written")
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to disk: what was created or renamed in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
