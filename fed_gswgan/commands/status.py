"""``fed-gswgan status``: how far a run is, what it cost so far, and whether it is alive."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from fed_gswgan.reporting.round_log import ROUNDS, read_rounds
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, WIRE_BYTES, config_of_run, is_running

REPLIES = ("asked", "received", "failed", "malformed", "missing")
SLACK_SECONDS = 60.0  # beyond the time-out, for a round's other work


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "status", help="how far a run is; exit status 1 if it stands still: a health check"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--max-age",
        type=float,
        metavar="SECONDS",
        help="since the last round, of a healthy run; default: its reply-timeout-seconds and 60",
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=status, render=_lines, verdict=lambda result: result["healthy"])


def status(options: argparse.Namespace) -> dict[str, Any]:
    """Return the status; FileNotFoundError if the folder holds no run."""
    run: Path = options.run
    config = config_of_run(run)
    rounds = read_rounds(run)
    finished = (run / SUMMARY).exists()
    age = time.time() - max(_written(run / RUN), _written(run / ROUNDS))
    max_age = options.max_age
    if max_age is None:
        max_age = float(config["reply-timeout-seconds"]) + SLACK_SECONDS
    state = "finished" if finished else "running" if is_running(run) else "stopped"
    return {
        "run": str(run),
        "state": state,
        "healthy": finished or (state == "running" and age <= max_age),
        "round": rounds[-1]["server_round"] if rounds else 0,
        "rounds": config["rounds"],
        "seconds_since_last_round": round(age, 1),
        "replies": {kind: sum(line[kind] for line in rounds) for kind in REPLIES},
        "epsilon_server_bound": rounds[-1]["epsilon_server_bound"] if rounds else 0.0,
        "delta": config["delta"],
        "payload_bytes": {
            direction: sum(line[f"{direction}_bytes"] for line in rounds)
            for direction in ("uplink", "downlink")
        },
        "wire_bytes": _wire_bytes(run),
    }


def _wire_bytes(run: Path) -> dict[str, int] | None:
    """Return what crossed the network, where something before the server counts it."""
    path = run / WIRE_BYTES
    return dict(json.loads(path.read_text())) if path.exists() else None


def _written(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _lines(result: dict[str, Any]) -> str:
    replies, payload, wire = result["replies"], result["payload_bytes"], result["wire_bytes"]
    lines = [
        f"{result['run']}: {result['state']}, {'healthy' if result['healthy'] else 'NOT healthy'}",
        f"round {result['round']} of {result['rounds']}, "
        f"{result['seconds_since_last_round']:g} s ago",
        "replies: " + ", ".join(f"{count} {kind}" for kind, count in replies.items()),
        f"epsilon of the user asked most: at most {result['epsilon_server_bound']:.6g} at delta "
        f"{result['delta']:g}, by the server's count",
        f"payload: {payload['uplink'] / 1e6:.3f} MB up, {payload['downlink'] / 1e6:.3f} MB down",
    ]
    if wire is not None:
        lines.append(
            f"on the wire: {wire['uplink'] / 1e6:.3f} MB up, {wire['downlink'] / 1e6:.3f} MB down, "
            "the bundle, polling, TLS and all"
        )
    return "\n".join(lines)
