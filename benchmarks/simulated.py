"""Runs a simulation as a user does, in a process of its own, and returns its summary."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def simulate(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run in process with these settings, or resume the folder's run up to their rounds."""
    words = [sys.executable, "-m", "simulations.run", "--runtime", "in-process"]
    if folder.exists():
        words += ["--resume", str(folder), "--set", f"rounds={settings['rounds']}"]
    else:
        words += ["--output", str(folder)]
        words += [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildProcessError(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
    return dict(json.loads((folder / "summary.json").read_text()))
