"""Where each round's wall time went, read from what every process of a simulation noted."""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from fed_gswgan.profiling import PROFILE_FOLDER, process_name

PHASES = ("generator", "critic", "sanitize", "codec", "engine_wait", "other")

Seconds = dict[str, float]


class RoundProfile:
    """Splits the wall time of each round into phases that add up to it.

    Clients work side by side, so theirs count as long as in the process that served them longest:
    the one that the round waits for. With several rounds in flight they also work while the server
    does; then each of their phases counts by the share of their time that the server waited.
    ``engine_wait`` is what the server waited beyond that, for messages, processes and polling.
    ``other`` is the rest: ledgers, the critics' files, budgets.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {path: path.stat().st_size for path in self._files()}
        self._rounds = 0
        self._totals: Seconds = dict.fromkeys(PHASES, 0.0)

    @classmethod
    def asked_for(cls) -> "RoundProfile | None":
        """Return a profile if this process is to keep one."""
        folder = os.environ.get(PROFILE_FOLDER)
        return cls(Path(folder)) if folder else None

    def end_round(self, round_seconds: float) -> Seconds:
        """Return the seconds of each phase since the last call."""
        noted = {path.stem: self._new_lines(path) for path in self._files()}
        server = noted.get(process_name(), {})
        busiest = max(noted, key=lambda name: noted[name].get("answer", 0.0), default="")
        clients = noted.get(busiest, {}) if busiest != process_name() else {}
        waited = server.get("exchange", 0.0)
        answering = clients.get("answer", 0.0)
        share = min(1.0, waited / answering) if answering else 1.0
        phases = {
            phase: server.get(phase, 0.0) + share * clients.get(phase, 0.0)
            for phase in ("generator", "critic", "sanitize", "codec")
        }
        phases["engine_wait"] = max(0.0, waited - (answering or server.get("answer", 0.0)))
        phases["other"] = max(0.0, round_seconds - sum(phases.values()))
        self._rounds += 1
        for phase, seconds in phases.items():
            self._totals[phase] += seconds
        return phases

    def summary(self) -> dict[str, Any]:
        """Return the total of each phase, over the rounds since this start of the run."""
        return {
            "rounds": self._rounds,
            "seconds": {k: round(v, 3) for k, v in self._totals.items()},
        }

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))

    def _new_lines(self, path: Path) -> Seconds:
        found: Seconds = defaultdict(float)
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written at this moment: the next round's
                self._read[path] = self._read.get(path, 0) + len(line)
                phase, seconds = json.loads(line)
                found[phase] += seconds
        return found
