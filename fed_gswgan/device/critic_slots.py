"""A client's critic, optimizer and last reply in two memory-mapped files: one is always whole.

Each file, a slot, holds what the client had after one round, tagged by that round. A server that
falls back to its checkpoint asks for older rounds again and finds the critic of that time.
"""

import hashlib
import logging
import os
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
    """Two slots; a write never touches the one that may still be needed."""

    def __init__(self, folder: Path, experiment_id: str) -> None:
        # An experiment starts from a new critic; its name is the server's, and no path.
        name = hashlib.sha256(experiment_id.encode()).hexdigest()[:16]
        self._folder = folder / f"critic-{name}"
        self._paths = (self._folder / "0.slot", self._folder / "1.slot")

    def before(self, server_round: int) -> CriticState | None:
        """Return the newest state of an earlier round; None for a critic that never trained.

        A file that holds no state, since it was damaged or its writer was killed, is reported.
        """
        found = [(path, _read(path)) for path in self._paths]
        for path, state in found:
            if state is None and path.exists():
                logger.warning("critic file %s is damaged or unfinished; it is not used", path)
        states = [s for _, s in found if s and s.server_round < server_round]
        return max(states, key=lambda state: state.server_round, default=None)

    def released(self, key: ReleaseKey, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return what this very request was answered, float32; None if it is not kept any more."""
        for state in map(_read, self._paths):
            if state and (state.server_round, state.key) == (key.server_round, key.request_hash):
                return state.reply.reshape(shape).copy()
        return None

    def store(self, state: CriticState, checkpoint_round: int) -> None:
        """Write a state over the slot that is not needed to fall back to ``checkpoint_round``.

        What is not older than ``state`` is a future that the server has left, and goes. The slot
        that is kept is the newest one not younger than the checkpoint; of the other, or of both
        where neither qualifies, goes what is oldest.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        rounds = [
            old.server_round if old and old.server_round < state.server_round else _EMPTY
            for old in map(_read, self._paths)
        ]
        fallback = [r for r in rounds if _EMPTY < r <= checkpoint_round]
        kept = max(fallback, default=_EMPTY)
        candidates = [i for i in (0, 1) if rounds[i] != kept or kept == _EMPTY]
        victim = min(candidates, key=lambda i: rounds[i])
        if rounds[1 - victim] == _EMPTY:
            self._paths[1 - victim].unlink(missing_ok=True)
        _write(self._paths[victim], state)


def _read(path: Path) -> CriticState | None:
    """Return the slot's state; None if it was never written or its checksum does not match."""
    if not path.exists() or path.stat().st_size < _BODY_OFFSET:
        return None
    slot = np.memmap(path, dtype=np.uint8, mode="r")
    server_round, steps, count, reply_count, key, checksum = _HEADER.unpack(
        slot[: _HEADER.size].tobytes()
    )
    size = 4 * (3 * count + reply_count)
    if server_round == _EMPTY or len(slot) != _BODY_OFFSET + size:
        return None
    body = slot[_BODY_OFFSET:]
    if _checksum(slot[: _HEADER.size], body) != checksum:
        return None
    values = np.frombuffer(body, dtype=np.float32)
    return CriticState(
        server_round=server_round,
        optimizer_steps=steps,
        parameters=values[: 3 * count].reshape(3, count),
        key=key.decode(),
        reply=values[3 * count :],
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
    slot = np.memmap(path, dtype=np.uint8, mode="r+")
    slot[: _HEADER.size] = _header(_EMPTY, 0, 0, 0, "", 0)
    body = slot[_BODY_OFFSET:].view(np.float32)
    body[: 3 * count] = state.parameters.ravel()
    body[3 * count :] = state.reply
    fields = (state.server_round, state.optimizer_steps, count, reply_count, state.key)
    checksum = _checksum(_header(*fields, 0), slot[_BODY_OFFSET:])
    slot[: _HEADER.size] = _header(*fields, checksum)


def _checksum(header: np.ndarray, body: np.ndarray) -> int:
    """Return the checksum of all that a slot holds but the checksum itself."""
    return zlib.crc32(body.data, zlib.crc32(header[:-_CHECKSUM_BYTES].data))


def _header(
    server_round: int, steps: int, count: int, reply_count: int, key: str, checksum: int
) -> np.ndarray:
    packed = _HEADER.pack(server_round, steps, count, reply_count, key.encode(), checksum)
    return np.frombuffer(packed, dtype=np.uint8)
