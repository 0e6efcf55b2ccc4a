"""Files that are on disk when the call returns, and databases whose transactions are ours."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step; the new content is on disk when this returns.

    Raises:
        OSError: it names the file, a full disk too; what was there is untouched.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        with suppress(OSError):
            temporary.unlink()
        raise
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing database; transactions are ours."""
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is missing")
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@contextmanager
def database(path: Path, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a database for a while; ``create`` makes its file, which must not be there yet."""
    if create:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = connect(path)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all of the block, or nothing of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
