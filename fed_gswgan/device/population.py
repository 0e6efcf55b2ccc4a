"""Which virtual clients ever had a ledger: a byte for each, in one sparse file made once for all.

A virtual client's folder and ledger are made when it is asked for the first time, so that a
population costs what those cost who are asked. That one is new is believed of this file alone: its
byte says on disk that the ledger was made before the client may answer. So a ledger that is missing
after that is an exhausted one, as on a device; and without the file everybody's is.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fed_gswgan.data.partition import Partitions
from fed_gswgan.device.client_folder import LEDGER
from fed_gswgan.privacy.durable_file import lock, sync_folder
from fed_gswgan.privacy.ledger import Ledger
from fed_gswgan.privacy.ledger_file import LOCK_PATIENCE_SECONDS
from fed_gswgan.privacy.refusals import LedgerUnavailable

POPULATION = "population"
DRAFTS = ".drafts"  # ledgers in the making, moved to their clients when they are whole

_FORMAT = "fed-gswgan-population/1"
_BYTES_OFFSET = 4096  # the page before them says whose they are
_NEW, _MADE = b"\0", b"\1"


def virtual_client_id(partition_id: int) -> str:
    """Return the id of the virtual client that holds this partition."""
    return f"client-{partition_id:05d}"


class Population:
    """The virtual clients of one folder, shared by any number of processes.

    Args:
        folder: of all of them, made by ``create``.
        partitions: how users are dealt to them; a folder keeps one way of dealing.
    """

    def __init__(self, folder: Path, partitions: Partitions) -> None:
        self._folder = folder
        self._partitions = partitions
        self._header = _header(partitions)

    @staticmethod
    def create(folder: Path, partitions: Partitions) -> None:
        """Make the folder, with nobody's ledger yet, in one piece; a folder that is there stays.

        Args:
            folder: readable by its owner alone.
            partitions: how users are dealt to the clients.
        """
        if folder.exists():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            (draft / DRAFTS).mkdir(mode=0o700)
            descriptor = os.open(draft / POPULATION, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.pwrite(descriptor, _header(partitions), 0)
                os.ftruncate(descriptor, _BYTES_OFFSET + len(partitions))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(draft)
            draft.rename(folder)  # refused if another process was first: its folder is not empty
        except OSError:
            shutil.rmtree(draft)
            if not folder.exists():
                raise
        sync_folder(folder.parent)

    def folder_of(self, partition_id: int) -> Path:
        """Return where a client's folder is, or will be."""
        return self._folder / virtual_client_id(partition_id)

    def open(self, partition_id: int) -> Path:
        """Return the folder of a client, made now with an empty ledger if it never was.

        What is missing in a folder that was made is not made again: its client refuses to answer.

        Raises:
            LedgerUnavailable: the population's file is missing, damaged, or of clients to whom
                users were dealt otherwise.
            LedgerLocked: another process does not let go of it.
        """
        client = self.folder_of(partition_id)
        with self._locked() as descriptor:
            position = _BYTES_OFFSET + partition_id
            if os.pread(descriptor, 1, position) == _NEW:
                if not client.exists():  # it may be, after a crash: then it has not answered yet
                    self._make(client, partition_id)
                os.pwrite(descriptor, _MADE, position)
                os.fsync(descriptor)
        return client

    def made(self) -> list[int]:
        """Return the partition ids of all clients whose ledger was ever made.

        Raises:
            LedgerUnavailable: as ``open``.
        """
        with self._locked() as descriptor:
            made = os.pread(descriptor, len(self._partitions), _BYTES_OFFSET)
        return [int(i) for i in np.flatnonzero(np.frombuffer(made, dtype=np.uint8))]

    def _make(self, client: Path, partition_id: int) -> None:
        draft = Path(tempfile.mkdtemp(dir=self._folder / DRAFTS))  # mode 0700
        try:
            # What a power cut leaves of an unsynced ledger is a missing or an unreadable one: of a
            # client that did not answer yet, or else exhausted.
            Ledger.create(draft / LEDGER, self._partitions.users(partition_id), sync=False)
            draft.rename(client)
        except OSError:
            shutil.rmtree(draft)
            raise

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._folder / POPULATION, os.O_RDWR)
        except OSError as error:
            raise LedgerUnavailable(
                f"{POPULATION}: {error.strerror}; without it nobody knows who is new, and every "
                "client's ledger counts as exhausted"
            ) from error
        try:
            lock(descriptor, POPULATION, LOCK_PATIENCE_SECONDS)
            size = _BYTES_OFFSET + len(self._partitions)
            if os.fstat(descriptor).st_size != size or (
                os.pread(descriptor, _BYTES_OFFSET, 0) != self._header
            ):
                raise LedgerUnavailable(
                    f"{POPULATION} is damaged, or users were dealt to clients otherwise: somebody "
                    "would not be charged; keep one folder for one way of dealing"
                )
            yield descriptor
        finally:
            os.close(descriptor)  # releases the lock


def _header(partitions: Partitions) -> bytes:
    """Return the first page: whose users the clients have, as a hash."""
    dealt = json.dumps([partitions.virtual_clients, partitions.shards])
    digest = hashlib.sha256(dealt.encode()).hexdigest()
    header = {"format": _FORMAT, "clients": len(partitions), "dealt": digest}
    return (json.dumps(header) + "\n").encode().ljust(_BYTES_OFFSET, b"\0")
