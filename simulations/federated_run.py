"""One federated run of a comparison: a process of its own, whose folder tells the rest."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_gswgan.config import Config
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, changed_setting
from fed_gswgan.settings import Value, toml_value

PLACES = ("output-dir", "data-dir", "resume")  # where things lie; no part of what a run is


def run_federation(settings: Mapping[str, Value], folder: Path, runtime: str) -> dict[str, Any]:
    """Run a simulation to its end, or go on with the one in the folder; return its summary.

    It prints what ``python -m simulations.run`` prints, to standard error.

    Args:
        settings: of the run.
        folder: of the run.
        runtime: ``ray`` or ``in-process``.

    Raises:
        ValueError: the folder's run has other settings.
        ChildProcessError: the run failed.
    """
    _require_same_settings(settings, folder)
    summary = folder / SUMMARY
    if not summary.exists():
        words = [sys.executable, "-m", "simulations.run", "--runtime", runtime]
        if (folder / RUN).exists():
            words += ["--resume", str(folder)]
        else:
            words += ["--output", str(folder)]
            words += [f"--set={key}={toml_value(value)}" for key, value in settings.items()]
        status = subprocess.run(words, check=False, stdout=sys.stderr).returncode
        if status != 0:
            raise ChildProcessError(
                f"{folder}: the run ended with status {status}; its own words are above"
            )
    return dict(json.loads(summary.read_text()))


def _require_same_settings(settings: Mapping[str, Value], folder: Path) -> None:
    if not (folder / RUN).exists():
        return
    if changed := changed_setting(Config.from_table(settings), folder, PLACES):
        key, asked, kept = changed
        raise ValueError(
            f"{key}={asked} must be {kept}, as in the run that {folder} holds: name another output "
            "folder, or move that run away"
        )
