"""What the server can fall back to: tensors in safetensors, all else in JSON, nothing pickled."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fed_gswgan.reporting.files import replace_file, replace_json
from fed_gswgan.training.generator_trainer import GeneratorTrainer


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: everything of a checkpoint that is no tensor.

    Attributes:
        server_round: the last finished round.
        seconds: wall time of all finished rounds.
        replies: received, failed, malformed and missing so far.
        byte_meter: its state.
    """

    server_round: int
    seconds: float
    replies: dict[str, int]
    byte_meter: dict[str, int]


class Checkpoint:
    """The newest checkpoint of a run, in ``checkpoint/`` of its folder."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / "checkpoint"
        self._index = self._folder / "checkpoint.json"

    def exists(self) -> bool:
        """Tell whether there is one."""
        return self._index.exists()

    def save(self, trainer: GeneratorTrainer, progress: Progress) -> None:
        """Write the tensors, then the index that names them, then remove the older tensors.

        Args:
            trainer: generator and optimizers.
            progress: everything else.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"round-{progress.server_round:06d}.safetensors"
        data = save(_tensors(trainer))
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

    def ema_weights(self) -> dict[str, Tensor]:
        """Return the state dict of the generator's moving average.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: the tensors are not those that were saved.
        """
        return _part(_read_tensors(self._folder, self._read_index()), "ema")

    def load(self, trainer: GeneratorTrainer) -> Progress:
        """Put the trainer back to where it was, and return how far that was.

        Raises:
            ValueError: the tensors are not those that were saved, or of another network.
        """
        index = self._read_index()
        tensors = _read_tensors(self._folder, index)
        try:
            _restore(trainer, tensors)
        except RuntimeError as error:
            name = self._folder / index["tensors"]
            raise ValueError(f"{name}: its tensors are of another network: {error}") from error
        return Progress(**index["progress"])

    def _read_index(self) -> dict[str, Any]:
        if not self.exists():
            raise FileNotFoundError(f"{self._index}: no checkpoint; is this the folder of a run?")
        return dict(json.loads(self._index.read_text()))


def _tensors(trainer: GeneratorTrainer) -> dict[str, Tensor]:
    tensors = {}
    for prefix, network in trainer.networks().items():
        for name, tensor in network.state_dict().items():
            tensors[f"{prefix}/{name}"] = tensor.contiguous()
    for prefix, optimizer in trainer.optimizers().items():
        for position, state in optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                tensors[f"{prefix}/{position}/{name}"] = tensor.contiguous()
    return tensors


def _read_tensors(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / index["tensors"]
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != index["sha256"]:
        raise ValueError(f"{path}: its sha256 is not the one in checkpoint.json; it is damaged")
    return load(data)


def _restore(trainer: GeneratorTrainer, tensors: dict[str, Tensor]) -> None:
    for prefix, network in trainer.networks().items():
        network.load_state_dict(_part(tensors, prefix))
    for prefix, optimizer in trainer.optimizers().items():
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, prefix).items():
            position, moment = name.split("/")
            moments.setdefault(int(position), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
