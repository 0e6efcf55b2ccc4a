"""rounds.jsonl: one line a round, and one line in the log."""

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from fed_gswgan.reporting.files import replace_file
from fed_gswgan.reporting.round_report import RoundReport

logger = logging.getLogger(__name__)

ROUNDS = "rounds.jsonl"


class RoundLog:
    """Appends each round's report; a resumed run first drops the rounds it will run again."""

    def __init__(self, run_folder: Path, finished_round: int) -> None:
        path = run_folder / ROUNDS
        if path.exists():
            kept = [
                line
                for line in path.read_text().splitlines()
                if _round_of(line) is not None and _round_of(line) <= finished_round  # type: ignore[operator]
            ]
            replace_file(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", buffering=1)

    def write(self, report: RoundReport) -> None:
        """Append one round and say it in one line."""
        self._file.write(json.dumps(report.to_dict(), allow_nan=False) + "\n")
        logger.info(
            "round %d: %d of %d replies, epsilon at most %.1f, %.1f kB down, %.1f kB up, %.2f s",
            report.server_round,
            report.received,
            report.asked,
            report.epsilon_server_bound,
            report.downlink_bytes / 1e3,
            report.uplink_bytes / 1e3,
            report.round_seconds,
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def bytes_by_client(run_folder: Path) -> dict[str, list[int]]:
    """Return each client's downlink and uplink, summed over the rounds written so far."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with (run_folder / ROUNDS).open() as lines:
        for line in lines:
            for client_id, (downlink, uplink) in json.loads(line)["bytes_by_client"].items():
                sums[client_id][0] += downlink
                sums[client_id][1] += uplink
    return dict(sums)


def read_rounds(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rounds of a run, the last line left out if it is just being written."""
    path = run_folder / ROUNDS
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if _round_of(line) is not None]


def _round_of(line: str) -> int | None:
    """Return the line's round; None for a line that a crash cut short."""
    try:
        return int(json.loads(line)["server_round"])
    except (ValueError, KeyError, TypeError):
        return None
