"""An append-only file of JSON lines that survives crashes and notices edits and cuts.

Each line carries the hash of the line before it, and a separate head says where the last one
ends. Whoever cannot read every line, hash by hash, past the head gets ``LedgerUnavailable``: an
unreadable ledger is an exhausted one. Rolling ledger and head back together, as restoring an old
disk does, is outside this promise: nothing on the disk can tell.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.durable_file import lock, sync_folder, write_durably, write_whole
from fed_gswgan.privacy.ledger_head import LedgerHead, head_path, read_head, write_head
from fed_gswgan.privacy.refusals import LedgerUnavailable

FORMAT = "fed-gswgan-ledger/2"
LOCK_PATIENCE_SECONDS = 10.0


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
    def create(cls, path: Path, header: dict[str, Any], sync: bool = True) -> "LedgerFile":
        """Create a ledger once, explicitly; after that a missing file is an exhausted budget.

        Args:
            path: of the file.
            header: its first line.
            sync: return once it is on disk. Without, the first ``append`` brings all of it there.

        Raises:
            FileExistsError: there is one already, or the head of one; both are left as they are.
        """
        if head_path(path).exists():
            raise FileExistsError(f"{head_path(path)}: there was a ledger here; remove neither")
        line, last_hash = _chain("", {"format": FORMAT, **header})
        draft, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        try:
            (write_durably if sync else write_whole)(draft, line)
            os.link(name, path)  # in one piece, and only if there is none
        except FileExistsError as error:
            raise FileExistsError(f"{path}: there is one already; it is left as it is") from error
        finally:
            os.close(draft)
            os.unlink(name)
        if sync:
            sync_folder(path.parent)
        write_head(path, LedgerHead(len(line), last_hash), sync)
        return cls(path)

    def drop_incomplete_line(self) -> bool:
        """Cut off a last line that a crash left incomplete, and tell whether there was one.

        Nothing was released on the strength of it: a head is written, and a request answered, only
        after whole lines. The server's own count does so by itself; a device's ledger stays
        unreadable until its owner looks.

        Raises:
            LedgerUnavailable: lines that the head knows of are missing.
        """
        with self._open() as descriptor:
            whole = _up_to_last_newline(descriptor)
            if whole == os.fstat(descriptor).st_size:
                return False
            if whole < read_head(self.path).size_bytes:
                raise self._cut()
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
            return True

    @contextmanager
    def locked(self) -> Iterator["LedgerFile"]:
        """Hold the exclusive lock, with everything any process wrote so far in ``entries``.

        Raises:
            LedgerUnavailable: the file is missing, cut, edited or not writable.
            LedgerLocked: another process does not let go of it.
        """
        with self._open() as descriptor:
            self._read_news(descriptor)
            self._descriptor = descriptor
            yield self

    def append(self, entries: list[dict[str, Any]]) -> None:
        """Write the entries in one piece and return once they are on disk; needs the lock."""
        lines, last = b"", self._last_hash
        for entry in entries:
            line, last = _chain(last, entry)
            lines += line
        try:
            write_durably(self._descriptor, lines)
        except OSError as error:
            os.ftruncate(self._descriptor, self._read_bytes)  # half a line would spoil the rest
            raise self._not_written(error) from error
        self.entries += entries
        self._last_hash = last
        self._read_bytes += len(lines)
        self._write_head()

    @contextmanager
    def _open(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise LedgerUnavailable(
                f"ledger {self.path.name}: {error.strerror}; a ledger that cannot be opened "
                "counts as exhausted; restore it from a backup that is not older than the last "
                "reply"
            ) from error
        try:
            lock(descriptor, f"ledger {self.path.name}", LOCK_PATIENCE_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)  # releases the lock

    def _read_news(self, descriptor: int) -> None:
        """Read and verify what was appended since the last look, by whichever process."""
        head = read_head(self.path)
        size = os.fstat(descriptor).st_size
        if size == 0 or size < max(self._read_bytes, head.size_bytes):
            raise self._cut()
        news = os.pread(descriptor, size - self._read_bytes, self._read_bytes)
        if news and not news.endswith(b"\n"):
            raise LedgerUnavailable(
                f"ledger {self.path.name}: its last line is incomplete; it counts as exhausted; "
                "after a power cut, `fed-gswgan ledger verify --drop-incomplete-line` mends it"
            )
        entries: list[dict[str, Any]] = []
        position, last_hash = self._read_bytes, self._last_hash
        met = head.size_bytes < position  # it lags, after a crash: met before
        for line in news.splitlines(keepends=True):
            met |= (position, last_hash) == (head.size_bytes, head.last_hash)
            number = len(self.entries) + len(entries) + (2 if self.header else 1)
            entry, last_hash = self._verified(line, last_hash, number)
            entries.append(entry)
            position += len(line)
        if not met and (position, last_hash) != (head.size_bytes, head.last_hash):
            raise LedgerUnavailable(
                f"ledger {self.path.name} is not the one that {head_path(self.path).name} ends; "
                "it counts as exhausted"
            )
        if not self.header:
            self.header, *entries = entries
        self.entries += entries
        self._read_bytes, self._last_hash = position, last_hash
        if head.size_bytes < size:
            self._write_head()

    def _verified(self, line: bytes, previous_hash: str, number: int) -> tuple[dict[str, Any], str]:
        """Return the line's entry and hash."""
        try:
            entry = json.loads(line)["entry"]
            written, digest = _chain(previous_hash, entry)
            intact = line == written and isinstance(entry, dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            intact = False
        if not intact or (number == 1 and entry.get("format") != FORMAT):
            raise LedgerUnavailable(
                f"ledger {self.path.name}: line {number} was altered or is no line of a ledger; "
                "it counts as exhausted"
            )
        return entry, digest

    def _write_head(self) -> None:
        try:
            write_head(self.path, LedgerHead(self._read_bytes, self._last_hash))
        except OSError as error:
            raise self._not_written(error) from error

    def _cut(self) -> LedgerUnavailable:
        return LedgerUnavailable(f"ledger {self.path.name} was cut; it counts as exhausted")

    def _not_written(self, error: OSError) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"ledger {self.path.name}: {error.strerror}; nothing was released; make room or make "
            "it writable"
        )


def _chain(previous_hash: str, entry: dict[str, Any]) -> tuple[bytes, str]:
    body = json.dumps(entry, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256((previous_hash + body).encode()).hexdigest()
    return (json.dumps({"entry": entry, "hash": digest}, sort_keys=True) + "\n").encode(), digest


def _up_to_last_newline(descriptor: int) -> int:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return data.rfind(b"\n") + 1
