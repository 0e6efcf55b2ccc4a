"""A client's critic, optimizer and last reply in two memory-mapped files: one is always whole.

Each file, a slot, holds what the client had after one round, tagged by that round. A server that
falls back to its checkpoint asks for older rounds again and finds the critic of that time.
"""

import hashlib
import logging
import mmap
import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_gswgan.privacy.ledger import ReleaseKey

logger = logging.getLogger(__name__)

# round, optimizer steps, parameters, reply values, key, checksum
_HEADER = struct.Struct("<qqqq64sI")
_CHECKSUM_BYTES = 4
_BODY_OFFSET = 128
_EMPTY = -1

MOST_EXPERIMENTS = 8  # whose critics are kept


@dataclass(frozen=True)
class CriticState:
    """What a critic is after a round.

    Attributes:
        server_round: the round it belongs to.
        optimizer_steps: Adam steps taken so far.
        parameters: float32 (3, P): weights, first moments, second moments, flat.
        key: hash of the request it answered, 64 hexadecimal digits.
        reply: float32, flat: the values that were released then.
    """

    server_round: int
    optimizer_steps: int
    parameters: np.ndarray
    key: str
    reply: np.ndarray


class CriticSlots:
    """Two slots; a write never touches the one that may still be needed.

    They are read when first asked and once: to be used by whoever keeps others from writing.
    """

    def __init__(self, folder: Path, experiment_id: str) -> None:
        # An experiment starts from a new critic; its name is the server's, and no path.
        name = hashlib.sha256(experiment_id.encode()).hexdigest()[:16]
        self._folder = folder / f"critic-{name}"
        self._paths = (self._folder / "0.slot", self._folder / "1.slot")
        self._states: list[CriticState | None] | None = None

    def before(self, server_round: int) -> CriticState | None:
        """Return the newest state of an earlier round; None for a critic that never trained.

        A file that holds no state, since it was damaged or its writer was killed, is reported.
        """
        states = self._read()
        for path, state in zip(self._paths, states, strict=True):
            if state is None and path.exists():
                logger.warning("critic file %s is damaged or unfinished; it is not used", path)
        earlier = [state for state in states if state and state.server_round < server_round]
        return max(earlier, key=lambda state: state.server_round, default=None)

    def released(self, key: ReleaseKey, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return what this very request was answered, float32; None if it is not kept any more."""
        for state in self._read():
            if state and (state.server_round, state.key) == (key.server_round, key.request_hash):
                return state.reply.reshape(shape).copy()
        return None

    def store(self, state: CriticState, checkpoint_round: int) -> None:
        """Write a state over the slot that is not needed to fall back to ``checkpoint_round``.

        What is not older than ``state`` is a future that the server has left, and goes. The slot
        that is kept is the newest one not younger than the checkpoint; of the other, or of both
        where neither qualifies, goes what is oldest.
        """
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            _forget_experiments(self._folder.parent)
        rounds = [
            old.server_round if old and old.server_round < state.server_round else _EMPTY
            for old in self._read()
        ]
        fallback = [r for r in rounds if _EMPTY < r <= checkpoint_round]
        kept = max(fallback, default=_EMPTY)
        candidates = [i for i in (0, 1) if rounds[i] != kept or kept == _EMPTY]
        victim = min(candidates, key=lambda i: rounds[i])
        self._states = None
        if rounds[1 - victim] == _EMPTY:
            self._paths[1 - victim].unlink(missing_ok=True)
        _write(self._paths[victim], state)

    def _read(self) -> list[CriticState | None]:
        if self._states is None:
            self._states = [_read(path) for path in self._paths]
        return self._states


def _forget_experiments(folder: Path) -> None:
    """Remove all critics but those of the experiments that were answered last.

    A server names its experiments as it likes, and no name may cost the device its disk. Who comes
    back to a forgotten one finds a new critic, and pays anew for what it was answered.
    """
    newest_first = sorted(folder.glob("critic-*"), key=_last_written, reverse=True)
    for forgotten in newest_first[MOST_EXPERIMENTS:]:
        shutil.rmtree(forgotten, ignore_errors=True)


def _last_written(experiment: Path) -> int:
    return max(path.stat().st_mtime_ns for path in (experiment, *experiment.iterdir()))


def _read(path: Path) -> CriticState | None:
    """Return the slot's state; None if it was never written or its checksum does not match."""
    size = path.stat().st_size if path.exists() else 0
    if size < _BODY_OFFSET or size % np.float32().itemsize:
        return None
    slot, body = _mapped(path, mmap.ACCESS_READ)
    header = slot[: _HEADER.size]
    server_round, steps, count, reply_count, key, checksum = _HEADER.unpack(header)
    if server_round == _EMPTY or len(body) != 3 * count + reply_count:
        return None
    if _checksum(header, body) != checksum:
        return None
    return CriticState(
        server_round=server_round,
        optimizer_steps=steps,
        parameters=body[: 3 * count].reshape(3, count),
        key=key.decode(),
        reply=body[3 * count :],
    )


def _write(path: Path, state: CriticState) -> None:
    """Write in the order empty tag, body, tag, so that a slot cut short reads as empty."""
    count, reply_count = state.parameters.shape[1], len(state.reply)
    size = _BODY_OFFSET + 4 * (3 * count + reply_count)
    if not path.exists() or path.stat().st_size != size:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full disk raises here, not in the mapping
        finally:
            os.close(descriptor)
    slot, body = _mapped(path, mmap.ACCESS_WRITE)
    slot[: _HEADER.size] = _HEADER.pack(_EMPTY, 0, 0, 0, b"", 0)
    body[: 3 * count] = state.parameters.ravel()
    body[3 * count :] = state.reply
    tag = (state.server_round, state.optimizer_steps, count, reply_count, state.key.encode())
    slot[: _HEADER.size] = _HEADER.pack(*tag, _checksum(_HEADER.pack(*tag, 0), body))


def _mapped(path: Path, access: int) -> tuple[mmap.mmap, np.ndarray]:
    """Return the file's memory and, as float32, the part of it after the header."""
    with path.open("rb" if access == mmap.ACCESS_READ else "r+b") as file:
        slot = mmap.mmap(file.fileno(), 0, access=access)
    return slot, np.frombuffer(slot, dtype=np.float32, offset=_BODY_OFFSET)


def _checksum(header: bytes, body: np.ndarray) -> int:
    """Return the checksum of all that a slot holds but the checksum itself."""
    return zlib.crc32(body.data, zlib.crc32(header[:-_CHECKSUM_BYTES]))
