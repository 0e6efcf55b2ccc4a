"""Client rounds per second of every engine, in one run: a table, ratios and their spread.

Whole runs of real digits dealt to 64 people: the convolutional critic of width 16, 5 steps, batches
of 32, cohorts of 64 and 14. Each engine runs in a process of its own, in turn, as often as asked
for; a round's time holds the server's work and the clients'.

Usage: python -m benchmarks.engines [--repeats 3] [--without-ray]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulations.engine import Engine

SHARED = "ray, clients share messages"
ENGINES: dict[str, dict[str, Any]] = {
    "in-process, 1 process": {"runtime": "in-process", "workers": 1},
    "in-process, 2 workers": {"runtime": "in-process", "workers": 2},
    SHARED: {"runtime": "ray", "workers": 2},
    "ray, a message a client": {"runtime": "ray", "workers": 2, "clients_per_message": 1},
    "ray, Flower's send_and_receive": {"runtime": "ray", "workers": 2, "clients_per_message": 1},
}
REFERENCE = "in-process, 2 workers"
PLAIN = "ray, Flower's send_and_receive"
PEOPLE, CLIENTS = 100, 64  # a tenth or so is held out
# Cohort to rounds. The first round is not counted: its clients open their data and build a critic.
ROUNDS = {64: 3, 14: 7}
GOALS = {14: 0.85, 64: 0.95}

Seconds = dict[int, list[float]]  # cohort to those of each round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-ray", action="store_true", help="where Ray is not installed")
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_engine(options.one[0], Path(options.one[1]))))
        return
    left_out = {"ray": options.without_ray}
    engines = [name for name, of in ENGINES.items() if not left_out.get(of["runtime"], False)]
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as parent:
        deal_digits(Path(parent) / "people")
        for repeat in range(options.repeats):
            for engine in engines:
                for cohort, seconds in in_a_process(engine, Path(parent), repeat).items():
                    rate = cohort / statistics.median(seconds)
                    rates.setdefault((engine, cohort), []).append(rate)
                    print(f"repeat {repeat + 1}: {engine}, cohort {cohort}: {rate:.1f}", flush=True)
    for cohort in sorted(ROUNDS):
        print_table(cohort, {engine: rates[engine, cohort] for engine in engines})


def in_a_process(engine: str, parent: Path, repeat: int) -> Seconds:
    """Run one engine in a new process and return the seconds of its counted rounds."""
    folder = parent / f"{repeat}-{list(ENGINES).index(engine)}"
    command = [sys.executable, "-m", "benchmarks.engines", "--one", engine, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildProcessError(f"{engine} ended with status {done.returncode}: {done.stderr}")
    return {int(k): v for k, v in json.loads(done.stdout.splitlines()[-1]).items()}


def run_engine(name: str, folder: Path) -> Seconds:
    """Run every cohort on one engine and return the seconds of its rounds but the first."""
    import logging

    from rich.console import Console

    from fed_gswgan.config import Config
    from fed_gswgan.device.virtual_clients import SIMULATION_FOLDER, VirtualClients
    from server.app import run_server

    logging.getLogger("flwr").setLevel(logging.ERROR)
    virtual_clients = VirtualClients(folder / "clients")
    os.environ[SIMULATION_FOLDER] = str(virtual_clients.folder)
    settings = {
        "dataset": "folder", "data-dir": str(folder.parent / "people"), "max-clients": CLIENTS,
        "critic": "conv", "critic-width": 16, "critic-steps": 5, "batch-size": 32,
        "noise-source": "seeded", "evaluation-samples": 0, "samples-every": 1000,
    }  # fmt: skip
    quiet = Console(file=open(os.devnull, "w"))  # noqa: SIM115

    def serve(grid: Any) -> None:
        for cohort, rounds in ROUNDS.items():
            own = {"cohort-size": cohort, "rounds": rounds, "output-dir": str(folder / str(cohort))}
            config = Config.from_run_config(settings | own)
            used = PlainGrid(grid) if name == PLAIN else grid
            run_server(used, config, virtual_clients, name, console=quiet)

    engine = Engine(**ENGINES[name])
    engine.run(serve, Config.from_run_config(settings).to_run_config(), CLIENTS)
    return {cohort: round_seconds(folder / str(cohort))[1:] for cohort in ROUNDS}


class PlainGrid:
    """Flower's Grid as Flower's own strategies use it: push all, then its loop until the end."""

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._replies: list[Any] = []

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return list(self._grid.get_node_ids())

    def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
        """Push, and wait for all replies."""
        self._replies = list(self._grid.send_and_receive(list(messages)))
        return [reply.metadata.reply_to_message_id for reply in self._replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
        """Return the replies that were waited for."""
        return self._replies


def round_seconds(folder: Path) -> list[float]:
    """Return the wall time of each round of a run."""
    from fed_gswgan.reporting.round_log import read_rounds

    return [line["round_seconds"] for line in read_rounds(folder)]


def deal_digits(folder: Path) -> None:
    """Write the embedded digits as PNG files of so many people, in turn."""
    import numpy as np
    from PIL import Image

    from fed_gswgan.config import DataConfig
    from fed_gswgan.data.registry import open_source

    source = open_source(DataConfig())
    number = 0
    for writer in source.writer_ids:
        shard = source.shard(writer)
        for image, label in zip(shard.images, shard.labels, strict=True):
            own = folder / f"person-{number % PEOPLE:02d}" / str(label)
            own.mkdir(parents=True, exist_ok=True)
            paper = np.uint8(255) - np.round(image[0] * 255).astype(np.uint8)
            Image.fromarray(paper).save(own / f"{number:04d}.png")
            number += 1


def print_table(cohort: int, rates: dict[str, list[float]]) -> None:
    ratios = {
        engine: [a / b for a, b in zip(found, rates[REFERENCE], strict=True)]
        for engine, found in rates.items()
    }
    print(f"\ncohort {cohort}: client rounds per second, median (least to most of the repeats)")
    print(f"{'engine':<32}{'rate':>8}{'':>20}{f'over {REFERENCE}':>36}")
    for engine, found in rates.items():
        print(f"{engine:<32}{_spread(found, 1)}{_spread(ratios[engine], 2):>36}")
    if SHARED in rates:
        found = _spread(ratios[SHARED], 2).strip()
        print(f"goal: ray over {REFERENCE} >= {GOALS[cohort]:.2f}; here {found}")


def _spread(values: list[float], digits: int) -> str:
    least, most = min(values), max(values)
    middle = statistics.median(values)
    return f"{middle:>8.{digits}f}{f' ({least:.{digits}f} to {most:.{digits}f})':<20}"


if __name__ == "__main__":
    main()
