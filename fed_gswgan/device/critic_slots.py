"""A client's critic, optimizer and last reply in two files of safetensors: one is always whole.

Each file, a slot, holds what the client had after one round, tagged by that round. A server that
falls back to its checkpoint asks for older rounds again and finds the critic of that time. A slot
is written in place, since a large new file for each round takes longer.
"""

import hashlib
import logging
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fed_gswgan.privacy.durable_file import write_whole
from fed_gswgan.privacy.ledger import ReleaseKey

logger = logging.getLogger(__name__)

_EMPTY = -1
_START_BYTES = 8  # of a file of safetensors: how long its header is

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
        self._paths = tuple(self._folder / f"{number}.safetensors" for number in (0, 1))
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
            _forget_experiments(self._folder.parent)
            self._folder.mkdir(mode=0o700)
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
    """Make room for one more experiment: those that were answered last keep their critics.

    A server names its experiments as it likes, and no name may cost the device its disk. Who comes
    back to a forgotten one finds a new critic, and pays anew for what it was answered.
    """
    newest_first = sorted(folder.glob("critic-*"), key=_last_written, reverse=True)
    for forgotten in newest_first[MOST_EXPERIMENTS - 1 :]:
        shutil.rmtree(forgotten, ignore_errors=True)


def _last_written(experiment: Path) -> int:
    return max(path.stat().st_mtime_ns for path in (experiment, *experiment.iterdir()))


def _read(path: Path) -> CriticState | None:
    """Return the slot's state; None if it was never written or is not as it was written."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "numpy") as slot:
            tag, tensors = slot.metadata(), {name: slot.get_tensor(name) for name in slot.keys()}  # noqa: SIM118
        state = CriticState(
            server_round=int(tag["round"]),
            optimizer_steps=int(tag["optimizer-steps"]),
            parameters=tensors["parameters"],
            key=tag["request-hash"],
            reply=tensors["reply"],
        )
        return state if tag == _tag(state) else None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None


def _write(path: Path, state: CriticState) -> None:
    """Write the start last, so that a slot cut short is no file of safetensors."""
    data = save({"parameters": state.parameters, "reply": state.reply}, _tag(state))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, len(data))  # a full disk ends it here
        os.pwrite(descriptor, bytes(_START_BYTES), 0)
        os.lseek(descriptor, _START_BYTES, os.SEEK_SET)
        write_whole(descriptor, data[_START_BYTES:])
        os.ftruncate(descriptor, len(data))
        os.pwrite(descriptor, data[:_START_BYTES], 0)
    finally:
        os.close(descriptor)


def _tag(state: CriticState) -> dict[str, str]:
    """Return what a slot says beside its tensors, a checksum of all of it included."""
    tag = {
        "round": str(state.server_round),
        "optimizer-steps": str(state.optimizer_steps),
        "request-hash": state.key,
    }
    said = repr((tag, state.parameters.shape, state.reply.shape)).encode()
    body = zlib.crc32(np.ascontiguousarray(state.parameters).data, zlib.crc32(said))
    return {**tag, "checksum": f"{zlib.crc32(state.reply.data, body):08x}"}
