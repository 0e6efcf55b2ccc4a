"""Writes that survive a crash, and a lock that whole processes respect."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fed_gswgan.privacy.refusals import LedgerLocked, LedgerUnavailable

_POLL_SECONDS = 0.005


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` in one piece; OSError if that cannot be."""
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(28, f"only {written} of {len(data)} bytes were written")


def write_durably(descriptor: int, data: bytes) -> None:
    """Write all of ``data`` in one piece and return once it is on disk; OSError if it is not."""
    write_whole(descriptor, data)
    os.fsync(descriptor)


def replace_durably(path: Path, data: bytes) -> None:
    """Put a whole new file in place of ``path``, readable by its owner alone, and on disk."""
    replace_whole(path, data, write_durably)
    sync_folder(path.parent)


def replace_whole(
    path: Path, data: bytes, write: Callable[[int, bytes], None] = write_whole
) -> None:
    """Put a whole new file in place of ``path``, readable by its owner alone."""
    draft, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        _give_to_owner(draft, path.parent)
        write(draft, data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(draft)


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Give a file that root makes in another account's folder to that account, which must use it.

    So whoever looks at a device's ledger as root locks nobody out.
    """
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to disk: what was created or renamed in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(descriptor: int, what: str, patience_seconds: float) -> None:
    """Take the exclusive lock of an open file; closing it lets go.

    Raises:
        LedgerLocked: somebody else has it all the time.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise LedgerLocked(
                    f"{what} was held by another process for {patience_seconds:g} s; ask again"
                ) from error
        time.sleep(_POLL_SECONDS)


@contextmanager
def held(path: Path, patience_seconds: float) -> Iterator[None]:
    """Hold a lock file for as long as the block runs.

    Raises:
        LedgerLocked: another process does not let go of it.
        LedgerUnavailable: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerUnavailable(f"{path.name}: {error.strerror}; counts as exhausted") from error
    try:
        _give_to_owner(descriptor, path.parent)
        lock(descriptor, path.name, patience_seconds)
        yield
    finally:
        os.close(descriptor)
