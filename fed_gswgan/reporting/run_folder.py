"""The folder of a run, and who the run is: its settings and its experiment id."""

import json
import secrets
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fed_gswgan.config import Config
from fed_gswgan.flat_table import Value
from fed_gswgan.reporting.files import replace_json

_INDEX = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run.

    Attributes:
        path: of the folder.
        experiment_id: part of the key of every private release; kept when the run is resumed.
    """

    path: Path
    experiment_id: str

    @classmethod
    def open(cls, config: Config) -> "RunFolder":
        """Create the folder of a new run, or find the one to resume.

        Raises:
            FileExistsError: a run is there already and ``resume`` is off; nothing is touched.
            FileNotFoundError: ``resume`` is on and there is no run.
        """
        path = Path(config.run.output_dir or default_folder(config))
        index = path / _INDEX
        if config.run.resume:
            if not index.exists():
                raise FileNotFoundError(f"output-dir={path}: no {_INDEX}, so no run to resume")
            return cls(path, json.loads(index.read_text())["experiment_id"])
        if index.exists():
            raise FileExistsError(
                f"output-dir={path} holds a run already; resume it, or name another folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        experiment_id = secrets.token_hex(8)
        settings = {k: "inf" if v == float("inf") else v for k, v in config.to_run_config().items()}
        record = {
            "experiment_id": experiment_id,
            "config": settings,
            "versions": {name: version(name) for name in ("fed-gswgan", "flwr", "torch", "numpy")},
        }
        replace_json(index, record)
        return cls(path, experiment_id)


def config_of_run(path: Path) -> dict[str, Value]:
    """Return the flat settings that a run was started with.

    Raises:
        FileNotFoundError: the folder holds no run.
    """
    index = path / _INDEX
    if not index.exists():
        raise FileNotFoundError(f"{index}: not there; is {path} the folder of a run?")
    settings = json.loads(index.read_text())["config"]
    return {k: float("inf") if v == "inf" else v for k, v in settings.items()}


def default_folder(config: Config) -> str:
    """Return ``runs/<dataset>-<local time>``."""
    return f"runs/{config.data.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
