"""Runs simulations as a user does, each in a process of its own, and returns their summaries."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fed_gswgan.reporting.run_folder import SUMMARY
from fed_gswgan.settings import toml_value
from simulations.run import available_cores

Item = TypeVar("Item")
Found = TypeVar("Found")


def side_by_side(run: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Return ``run`` of every item, as many at a time as there are cores."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(run, items))


def simulate(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run in one process with these settings."""
    words = [sys.executable, "-m", "simulations.run", "--runtime", "in-process", "--workers", "1"]
    words += ["--output", str(folder)]
    words += [f"--set={key}={toml_value(value)}" for key, value in settings.items()]
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildProcessError(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
    which = f"{settings['rounds']} rounds of seed {settings.get('seed', 0)}"
    print(f"{which}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return dict(json.loads((folder / SUMMARY).read_text()))
