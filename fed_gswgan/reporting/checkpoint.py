"""What the server can fall back to: tensors in safetensors, all else in JSON, nothing pickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fed_gswgan.reporting.files import replace_file, replace_json


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: everything of a checkpoint that is no tensor.

    Attributes:
        server_round: the last finished round.
        seconds: wall time of all finished rounds.
        replies: received, failed, malformed and missing so far.
        byte_meter: its state.
        finished: whether the algorithm has finished.
    """

    server_round: int
    seconds: float
    replies: dict[str, int]
    byte_meter: dict[str, int]
    finished: bool = False


class Checkpoint:
    """The newest checkpoint of a run, in ``checkpoint/`` of its folder."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "checkpoint"
        self._index = self._folder / "checkpoint.json"

    def exists(self) -> bool:
        """Tell whether there is one."""
        return self._index.exists()

    def save(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write the tensors, then the index that names them, then remove the older tensors.

        Args:
            tensors: of the algorithm's server half.
            progress: everything else.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"round-{progress.server_round:06d}.safetensors"
        data = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        replace_file(self._folder / name, data)
        digest = hashlib.sha256(data).hexdigest()
        index = {"tensors": name, "sha256": digest, "progress": asdict(progress)}
        replace_json(self._index, index)
        for older in self._folder.glob("round-*.safetensors"):
            if older.name != name:
                older.unlink()

    def progress(self) -> Progress:
        """Return how far the run was.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        return Progress(**self._read_index()["progress"])

    def load(self) -> tuple[dict[str, Tensor], Progress]:
        """Return the tensors, and how far the run was.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: the tensors are not those that were saved.
        """
        index = self._read_index()
        return _read_tensors(self._folder, index), Progress(**index["progress"])

    def _read_index(self) -> dict[str, Any]:
        if not self.exists():
            raise FileNotFoundError(f"{self._index}: no checkpoint; is this the folder of a run?")
        return dict(json.loads(self._index.read_text()))


def _read_tensors(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / index["tensors"]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != index["sha256"]:
        raise ValueError(f"{path}: its sha256 is not the one in checkpoint.json; it is damaged")
    return load(data)
