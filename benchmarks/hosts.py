"""Seconds that hosting simulated clients takes, beside the arithmetic and noise alone.

A cohort of many clients answers with an update that costs nothing to compute, on Ray. The round is
compared with the bound, noise and rounding of as many updates and their sum, in as many processes
as there are workers. Whole runs and the arithmetic take turns, so that a machine whose speed drifts
slows both.

Usage: python -m benchmarks.hosts [--clients 1000] [--numbers 16000] [--rounds 12] [--workers 2]
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.algorithms.base import ClientView, Mean, Query, ReleaseShape, Request, Step, Update
from fed_gswgan.privacy.mechanism import Event, privatize
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.settings import Count, Settings
from simulations.run import simulate

ROWS = 20
REPEATS = 5  # of the arithmetic, before each run and after it
EMPTY = np.empty(0)


class NoOp:
    """Algorithm whose clients answer with zeros."""

    class Settings(Settings):
        """Its one key."""

        numbers: Count = 16_000
        """of a release"""

    @staticmethod
    def keeps_state(settings: "NoOp.Settings") -> bool:
        """Return False."""
        return False

    class Client:
        """Answers with zeros."""

        def __init__(self, settings: "NoOp.Settings", spec: object) -> None:
            self._zeros = np.zeros((ROWS, settings.numbers // ROWS), np.float32)

        def release(self, server_round: int) -> ReleaseShape:
            """Return the shape."""
            return ReleaseShape(*self._zeros.shape)

        def check(self, request: Request) -> None:
            """Accept everything."""

        def update(self, request: Request, client: ClientView) -> Update:
            """Return zeros."""
            return Update(self._zeros)

    class Server:
        """Learns nothing."""

        def __init__(self, settings: object, spec: object, seeds: object, rounds: int) -> None: ...

        def request(self, server_round: int) -> Query:
            """Return the round."""
            return Query(scalars={"round": server_round})

        def step(self, server_round: int, query: Query, mean: Mean) -> Step:
            """Return the norm of what is noise alone."""
            return Step({"norm": float(np.linalg.norm(mean.update_RN))})

        def finish(self) -> dict[str, float]:
            """Do nothing."""
            return {}

        def sampler(self):  # type: ignore[no-untyped-def]
            """Return blank samples."""
            return lambda labels_B, seed: torch.zeros(len(labels_B), 1, 28, 28)

        def state_dict(self) -> dict[str, Tensor]:
            """Return nothing of worth."""
            return {"none": torch.zeros(1)}

        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            """Load nothing."""


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--numbers", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--runtime", default="ray")
    parser.add_argument("--dataset", default="fed-emnist")
    options = parser.parse_args()
    size = options.clients, options.numbers, options.workers
    print(f"{options.clients} clients, {options.numbers} numbers each, {options.workers} workers")
    ratios, alone = [], arithmetic_seconds(*size)
    for _ in range(options.turns):
        rounds = statistics.median(round_seconds(options))
        after = arithmetic_seconds(*size)
        arithmetic, alone = statistics.median(alone + after), after
        ratios.append(rounds / arithmetic)
        print(
            f"round {rounds:.2f} s, arithmetic and noise alone {arithmetic:.2f} s: "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def round_seconds(options: argparse.Namespace) -> list[float]:
    """Return the seconds of each round of one run but its first, which starts the workers."""
    settings = {
        "dataset": options.dataset, "classes": "digits", "virtual-clients": options.clients,
        "cohort-size": options.clients, "rounds": options.rounds, "noise-source": "seeded",
        "noise-stddev": 2.14, "evaluation-samples": 0, "samples-every": 1000,
        "algorithm": "benchmarks.hosts:NoOp", "algorithm-settings": f"numbers = {options.numbers}",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        with redirect_stdout(sys.stderr):
            status = simulate(settings, output=str(folder), runtime=options.runtime,
                              workers=options.workers)  # fmt: skip
        if status != 0:
            sys.exit(f"a run ended with status {status}")
        return [line["round_seconds"] for line in read_rounds(folder)][1:]


def arithmetic_seconds(clients: int, numbers: int, workers: int) -> list[float]:
    """Return how long so many privatized updates and their sum take, some times over."""
    found = []
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(privatized_sum, [1] * workers, [numbers] * workers))
        for _ in range(REPEATS):
            started = time.monotonic()
            shares = [clients // workers] * workers
            parts = list(pool.map(privatized_sum, shares, [numbers] * workers))
            np.sum(parts, axis=0)
            found.append(time.monotonic() - started)
    return found


def privatized_sum(clients: int, numbers: int) -> np.ndarray:
    """Return the sum of privatized zero updates."""
    rows = np.zeros((ROWS, numbers // ROWS), np.float32)
    event = Event(rows=ROWS, numbers=numbers // ROWS, clipping_bound=1.0, noise_stddev=2.14)
    total = np.zeros(event.size, np.int64)
    for client in range(clients):
        noise = SeededNoise(np.random.default_rng(client))
        total += privatize(rows, EMPTY, event, noise)
    return total


if __name__ == "__main__":
    main()
