"""Folder of a run: who the run is, its checkpoint, and files that are replaced in one piece."""

import fcntl
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from safetensors.torch import load, save
from torch import Tensor

from fed_gswgan.config import Config
from fed_gswgan.data.check import CheckedData
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.privacy.durable import write_durably
from fed_gswgan.settings import Value

READABLE = 0o644


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file that other accounts may read."""
    write_durably(path, data, READABLE)


def replace_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, in one piece; not-a-number and infinity are refused."""
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def finite_json(value: Any, where: str = "") -> tuple[Any, list[str]]:
    """Return the value with None for each number that is not finite, and a line on each of those.

    Args:
        value: of plain JSON values, but for numbers that are not finite.
        where: names the value in those lines.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None, [f"{where} is {value}: undefined, or beyond every number"]
    if not isinstance(value, Mapping | list):
        return value, []
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    found = {k: finite_json(v, f"{where}, {k}" if where else str(k)) for k, v in pairs}
    lines = [line for _, of_one in found.values() for line in of_one]
    values = {key: plain for key, (plain, _) in found.items()}
    return (values if isinstance(value, Mapping) else list(values.values())), lines


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is: everything of a checkpoint that is no tensor.

    Attributes:
        server_round: the last finished round.
        seconds: wall time of all finished rounds.
        replies: received, failed, malformed and missing so far.
        byte_meter: its state.
        stopped: why the algorithm ended the run; empty: it did not.
        finished: whether the algorithm has finished, and no round came after.
    """

    server_round: int
    seconds: float
    replies: dict[str, int]
    byte_meter: dict[str, int]
    stopped: str = ""
    finished: bool = False


class Checkpoint:
    """The newest checkpoint of a run, in ``checkpoint/`` of its folder.

    Args:
        run_folder: of the run.
        class_names: written beside the tensors, in the order of the labels.
    """

    def __init__(self, run_folder: Path, class_names: Sequence[str] = ()) -> None:
        self._folder, self._class_names = run_folder / "checkpoint", list(class_names)
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
        index["class_names"] = self._class_names
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


RUN = "run.json"
DATA = "data.json"  # a digest of each writer's images, in simulations
_LOCK = "lock"
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 5, 0.02
SERVER_LEDGER = "server-ledger"
CLIENTS = "clients"
VERSION = 2  # of the folder; runs of earlier versions are refused
SUMMARY = "summary.json"
WIRE_BYTES = "wire_bytes.json"
LOG = "run.log"
REPORT, SIDE_BY_SIDE = "report.html", "side-by-side.png"

# What may change when a run is resumed. Anything else would make it another run, under whose
# settings the rounds so far were not computed and not charged.
RESUMABLE = (
    "rounds", "checkpoint-every", "samples-every", "sample-contrast", "evaluation-samples",
    "evaluate-every", "evaluation-references", "reply-timeout-seconds", "min-replies",
    "max-epsilon", "max-participations", "data-dir", "output-dir", "resume",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run.

    Attributes:
        path: of the folder.
        experiment_id: part of the key of every private release; kept when the run is resumed.
        config: its settings.
        shards: of clients, where they are simulated.
        spec: of its data set.
    """

    path: Path
    experiment_id: str
    config: Config
    shards: int
    spec: DataSpec


@contextmanager
def open_run_folder(
    config: Config, shards: int, spec: DataSpec, data: CheckedData | None = None
) -> Iterator[RunFolder]:
    """Create the folder of a new run, or find the one to resume, and keep others out of it.

    Args:
        config: of the run.
        shards: of simulated clients in a new run; 0: clients are devices.
        spec: of the data set.
        data: what the images were found to be; None: they are on devices.

    Raises:
        FileExistsError: a run is there already and ``resume`` is off; nothing is touched.
        FileNotFoundError: ``resume`` is on and there is no run.
        ValueError: a setting that may not change when a run is resumed did, or the data.
        BlockingIOError: another process has the run.
    """
    path = Path(config.shared.output_dir or default_folder(config))
    check_run_folder(config, path, data)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / _LOCK, "w") as lock:
        _take(lock, path)
        check_run_folder(config, path, data)  # again, now that nobody else can
        yield _enter(config, path, shards, spec, data)


def is_running(path: Path) -> bool:
    """Tell whether a process has the run in this folder open; one that was killed has not."""
    try:
        with open(path / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def check_run_folder(config: Config, path: Path, data: CheckedData | None = None) -> None:
    """Raise what ``open_run_folder`` would, but for the lock; changes nothing."""
    index = path / RUN
    if not config.shared.resume:
        if index.exists():
            raise FileExistsError(
                f"output-dir={path} holds a run already; resume it, or name another folder"
            )
        return
    if getattr(config.own, "generator_learning_rate_end_factor", 1.0) != 1:
        _require_same_rounds(config, path)
    if changed := changed_setting(config, path, RESUMABLE):
        key, value, before = changed
        raise ValueError(
            f"{key}={value} differs from the {before} of the run in {path}; on "
            f"resuming only these may change: {', '.join(RESUMABLE[:-2])}"
        )
    if data is not None:
        _require_same_data(path, data)


def _require_same_data(path: Path, data: CheckedData) -> None:
    """Refuse images that are not those of the rounds so far."""
    record = _record(path)
    if record.get("fingerprint", "") in ("", data.fingerprint):
        return
    writers = json.loads((path / DATA).read_text())
    changes = {
        "class added": set(data.class_names) - set(record["class_names"]),
        "class missing": set(record["class_names"]) - set(data.class_names),
        "writer added": set(data.digests) - set(writers),
        "writer missing": set(writers) - set(data.digests),
        "images changed of": {w for w in data.digests if data.digests[w] != writers.get(w)},
    }
    what, named = next((what, of) for what, of in changes.items() if of)
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    raise ValueError(
        f"the data is not that of the run in {path}: {what} {min(named)!r}{more}; bring the data "
        "back as it was, or start a new run"
    )


def _require_same_rounds(config: Config, path: Path) -> None:
    """Refuse to lengthen a run whose generator's steps so far depend on its length."""
    before = config_of_run(path)["rounds"]
    if config.shared.rounds != before:
        factor = getattr(config.own, "generator_learning_rate_end_factor", 1.0)
        raise ValueError(
            f"rounds={config.shared.rounds} must stay {before} with "
            f"generator-learning-rate-end-factor={factor:g}: the learning rate of the run in "
            f"{path} fell towards its last round; a longer run is another run"
        )


def changed_setting(
    config: Config, path: Path, free: Collection[str]
) -> tuple[str, Value, Value | None] | None:
    """Return the first setting in which ``config`` is not the run in ``path``: key, value, its.

    Args:
        config: to compare.
        path: of the run's folder.
        free: keys that may differ.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    before = config_of_run(path)
    for key, value in config.to_table().items():
        if key not in free and before.get(key) != value:
            return key, value, before.get(key)
    return None


def config_of_run(path: Path) -> dict[str, Value]:
    """Return the flat settings that a run was started or last resumed with.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: the run was made by an earlier version.
    """
    settings = _record(path)["config"]
    return {key: math.inf if value == "inf" else value for key, value in settings.items()}


def read_run(path: Path) -> RunFolder:
    """Return the run in a folder; raises as ``config_of_run``."""
    record, config = _record(path), Config.from_table(config_of_run(path))
    names = tuple(record.get("class_names", ()))
    spec = DataSpec(tuple(record["image_shape"]), record["num_classes"], names)
    return RunFolder(path, record["experiment_id"], config, record["shards"], spec)


def _record(path: Path) -> dict[str, Any]:
    index = path / RUN
    if not index.exists():
        raise FileNotFoundError(f"{index}: not there; is {path} the folder of a run?")
    record: dict[str, Any] = json.loads(index.read_text())
    if record.get("version") != VERSION:
        raise ValueError(
            f"{index}: a run of version {record.get('version', 1)}, this program reads version "
            f"{VERSION}; finish it with the program that started it"
        )
    return record


def default_folder(config: Config) -> str:
    """Return ``runs/<dataset>-<local time>``."""
    return f"runs/{config.shared.dataset.split(':')[-1]}-{time.strftime('%Y%m%d-%H%M%S')}"


def _take(lock: TextIO, path: Path) -> None:
    """Lock the run; patient for a moment, since ``is_running`` holds the lock while it asks."""
    for remaining in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if not remaining:
                raise BlockingIOError(f"output-dir={path}: another process runs it now") from error
            time.sleep(_LOCK_PAUSE_SECONDS)


def _enter(
    config: Config, path: Path, shards: int, spec: DataSpec, data: CheckedData | None
) -> RunFolder:
    index = path / RUN
    if config.shared.resume:
        before = read_run(path)
        experiment_id, shards = before.experiment_id, before.shards
        (path / SUMMARY).unlink(missing_ok=True)  # a reader may take the run for finished
    else:
        experiment_id = secrets.token_hex(8)
    settings = config.to_table()
    record: dict[str, Any] = {
        "version": VERSION,
        "experiment_id": experiment_id,
        "config": {k: "inf" if v == math.inf else v for k, v in settings.items()},
        "shards": shards,
        "image_shape": list(spec.image_shape),
        "num_classes": spec.num_classes,
        "class_names": list(spec.class_names),
        "fingerprint": data.fingerprint if data else "",
        "versions": {name: version(name) for name in ("fed-gswgan", "flwr", "torch", "numpy")},
        "process": os.getpid(),
    }
    if data and data.digests:
        replace_json(path / DATA, data.digests)
    replace_json(index, record)
    return RunFolder(path, experiment_id, config, shards, spec)
