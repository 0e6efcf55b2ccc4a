"""The folder of a run, and who the run is: its settings and its experiment id."""

import fcntl
import json
import math
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from fed_gswgan.config import Config
from fed_gswgan.flat_table import Value
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.reporting.files import replace_json

RUN = "run.json"
_LOCK = "lock"
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 5, 0.02
ASKED = "asked.jsonl"
SUMMARY = "summary.json"
WIRE_BYTES = "wire_bytes.json"
LOG = "run.log"

# What may change when a run is resumed. Anything else would make it another run, under whose
# settings the rounds so far were not computed and not charged.
RESUMABLE = (
    "rounds", "checkpoint-every", "samples-every", "sample-contrast", "evaluation-samples",
    "reply-timeout-seconds", "min-replies", "max-epsilon", "max-participations", "data-dir",
    "output-dir", "resume",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run.

    Attributes:
        path: of the folder.
        experiment_id: part of the key of every private release; kept when the run is resumed.
    """

    path: Path
    experiment_id: str


@contextmanager
def open_run_folder(config: Config) -> Iterator[RunFolder]:
    """Create the folder of a new run, or find the one to resume, and keep others out of it.

    Raises:
        FileExistsError: a run is there already and ``resume`` is off; nothing is touched.
        FileNotFoundError: ``resume`` is on and there is no run.
        ValueError: a setting that may not change when a run is resumed did.
        BlockingIOError: another process has the run.
    """
    path = Path(config.run.output_dir or default_folder(config))
    check_run_folder(config, path)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / _LOCK, "w") as lock:
        _take(lock, path)
        check_run_folder(config, path)  # again, now that nobody else can
        yield _enter(config, path)


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


def check_run_folder(config: Config, path: Path) -> None:
    """Raise what ``open_run_folder`` would, but for the lock; changes nothing."""
    index = path / RUN
    if not config.run.resume:
        if index.exists():
            raise FileExistsError(
                f"output-dir={path} holds a run already; resume it, or name another folder"
            )
        return
    if config.generator.generator_learning_rate_end_factor != 1:
        _require_same_rounds(config, path)
    if changed := changed_setting(config, path, RESUMABLE):
        key, value, before = changed
        raise ValueError(
            f"{key}={value} differs from the {before} of the run in {path}; on "
            f"resuming only these may change: {', '.join(RESUMABLE[:-2])}"
        )


def _require_same_rounds(config: Config, path: Path) -> None:
    """Refuse to lengthen a run whose generator's steps so far depend on its length."""
    before = config_of_run(path)["rounds"]
    if config.run.rounds != before:
        factor = config.generator.generator_learning_rate_end_factor
        raise ValueError(
            f"rounds={config.run.rounds} must stay {before} with generator-learning-rate-end-factor"
            f"={factor:g}: the learning rate of the run in {path} fell towards its last round; "
            "a longer run is another run"
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
    for key, value in config.to_run_config().items():
        if key not in free and before.get(key) != value:
            return key, value, before.get(key)
    return None


def config_of_run(path: Path) -> dict[str, Value]:
    """Return the flat settings that a run was started or last resumed with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    index = path / RUN
    if not index.exists():
        raise FileNotFoundError(f"{index}: not there; is {path} the folder of a run?")
    settings = json.loads(index.read_text())["config"]
    return {key: math.inf if value == "inf" else value for key, value in settings.items()}


def default_folder(config: Config) -> str:
    """Return ``runs/<dataset>-<local time>``."""
    return f"runs/{config.data.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"


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


def _enter(config: Config, path: Path) -> RunFolder:
    index = path / RUN
    if config.run.resume:
        experiment_id = json.loads(index.read_text())["experiment_id"]
        (path / SUMMARY).unlink(missing_ok=True)  # whoever finds one may take the run for finished
    else:
        experiment_id = secrets.token_hex(8)
        UserLedgers.create(path / ASKED)
    settings = config.to_run_config()
    record: dict[str, Any] = {
        "experiment_id": experiment_id,
        "config": {k: "inf" if v == math.inf else v for k, v in settings.items()},
        "versions": {name: version(name) for name in ("fed-gswgan", "flwr", "torch", "numpy")},
        "process": os.getpid(),
    }
    replace_json(index, record)
    return RunFolder(path, experiment_id)
