"""What a comparison keeps: a file for each finished cell, so that it can go on after a stop."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load, save
from torch import Tensor

from fed_gswgan.reporting.run_folder import replace_file, replace_json

Settings = dict[str, Any]


class CellsFailed(RuntimeError):
    """Some cells of a comparison failed; the others are kept."""


class ResultsFolder:
    """The folder of one comparison.

    ``settings.json`` says what it compares; ``cells/`` holds a JSON file for each finished cell,
    ``samples/`` a few of its samples, ``logs/`` how it went, ``judge.safetensors`` who judged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, settings: Settings) -> None:
        """Make the folder, or make sure that it is of the same comparison.

        Raises:
            ValueError: it is of another one, naming the setting that differs.
        """
        path = self.folder / "settings.json"
        if not path.exists():
            for name in ("cells", "samples", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            replace_json(path, settings)
            return
        kept = json.loads(path.read_text())
        for name in sorted(kept | settings):
            asked, there = settings.get(name), kept.get(name)
            if asked != there:
                raise ValueError(
                    f"{name.replace('_', '-')}={asked} must be {there}, as in {path}: name another "
                    "output folder for another comparison"
                )

    def keep(self, name: str, measured: dict[str, Any]) -> None:
        """Write a finished cell down, in one piece."""
        replace_json(self.folder / "cells" / f"{name}.json", measured)

    def read(self, name: str) -> dict[str, Any]:
        """Return a finished cell; FileNotFoundError if it is not finished."""
        return dict(json.loads((self.folder / "cells" / f"{name}.json").read_text()))

    def finished(self, name: str, settings: Settings) -> bool:
        """Tell whether the cell is there, and of these settings: of others it is run again."""
        path = self.folder / "cells" / f"{name}.json"
        if not path.exists():
            return False
        kept = self.read(name).get("settings")
        return bool(kept == json.loads(json.dumps(settings)))

    def keep_samples(self, name: str, samples_LNHW: np.ndarray) -> None:
        """Keep bytes to draw a picture of, (classes, per class, H, W)."""
        np.savez_compressed(self.folder / "samples" / f"{name}.npz", samples=samples_LNHW)

    def samples(self, name: str) -> np.ndarray | None:
        """Return what ``keep_samples`` was given; None for a cell without."""
        path = self.folder / "samples" / f"{name}.npz"
        return np.load(path)["samples"] if path.exists() else None

    def keep_judge(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the judge of the inception score, which is the same for every cell."""
        replace_file(self.folder / "judge.safetensors", save(dict(weights)))

    def judge(self) -> dict[str, Tensor]:
        """Return what ``keep_judge`` was given; FileNotFoundError if nothing was."""
        return load((self.folder / "judge.safetensors").read_bytes())

    @contextmanager
    def progress_log(self, name: str) -> Iterator[Callable[[str], None]]:
        """Give a function that writes a line, with the seconds gone by, to the cell's log."""
        started = time.monotonic()
        with open(self.folder / "logs" / f"{name}.log", "w") as file:

            def write(line: str) -> None:
                file.write(f"{time.monotonic() - started:8.1f} s  {line}\n")
                file.flush()

            yield write
