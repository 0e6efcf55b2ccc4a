"""Seconds a round, start-up and peak memory of 10 to 100,000 virtual clients: a table, a ratio.

Each population runs in a process of its own on the in-process runtime, with generator and noise of
digits.toml, a cohort of 10 and a small critic: what a client costs beside its training shows.
The data is Fed-EMNIST's digits where FED_GSWGAN_DATA holds them, else scikit-learn's.

Usage: python -m benchmarks.scale [--rounds 30] [--repeats 3] [--critic-width 32]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from fed_gswgan.reporting.round_log import ROUNDS, read_rounds

POPULATIONS = (10, 100, 1_000, 10_000, 100_000)
COMPARED = (100, 100_000)
COHORT = 10
WARM_UP_ROUNDS = 5
POLL_SECONDS = 0.02


class Measured(NamedTuple):
    """One run.

    Attributes:
        start_seconds: from the start of the process to the first round.
        round_seconds: of one round, all that is written down included, after the warm-up.
        end_seconds: from the last round to the end of the process; nothing is evaluated.
        peak_mb: most resident memory of the process and its children together, in 10^6 bytes.
        participants: clients who were asked at least once.
        client_kb: what the shards take on disk for each of them, in 10^3 bytes.
    """

    start_seconds: float
    round_seconds: float
    end_seconds: float
    peak_mb: float
    participants: int
    client_kb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--critic-width", type=int, default=32)
    options = parser.parse_args()
    found: dict[int, list[Measured]] = {clients: [] for clients in POPULATIONS}
    for repeat in range(options.repeats):
        for clients, runs in found.items():
            runs.append(measure(clients, options.rounds, options.critic_width))
            print(f"repeat {repeat + 1}: {clients}: {runs[-1].round_seconds:.3f} s", flush=True)

    head = (
        "clients",
        "start s",
        "round s",
        "least",
        "most",
        "end s",
        "peak MB",
        "asked",
        "kB each",
    )
    print("\n" + "".join(f"{name:>9}" for name in head))
    for clients, runs in found.items():
        rounds = [run.round_seconds for run in runs]
        median = Measured(*(statistics.median(values) for values in zip(*runs, strict=True)))
        print(
            f"{clients:>9}{median.start_seconds:>9.2f}{median.round_seconds:>9.3f}"
            f"{min(rounds):>9.3f}{max(rounds):>9.3f}{median.end_seconds:>9.2f}"
            f"{median.peak_mb:>9.0f}{median.participants:>9.0f}{median.client_kb:>9.0f}"
        )
    few, many = ([run.round_seconds for run in found[clients]] for clients in COMPARED)
    ratios = [one / two for one, two in zip(many, few, strict=True)]
    print(
        f"a round of {COMPARED[1]} clients over one of {COMPARED[0]}, cohort {COHORT}: "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def measure(clients: int, rounds: int, critic_width: int = 32) -> Measured:
    """Run one population for some rounds."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        started = time.monotonic()
        process = subprocess.Popen(
            [*command(clients, rounds, critic_width), "--output", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        written: list[float] = []  # when the end of each round was seen
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            lines = count_lines(folder / ROUNDS)
            written += [time.monotonic()] * (lines - len(written))
            time.sleep(POLL_SECONDS)
        ended = time.monotonic()
        if process.returncode != 0:
            assert process.stderr is not None
            raise ChildProcessError(process.stderr.read())
        lines_read = read_rounds(folder)
        first = lines_read[0]
        asked = {client for line in lines_read for client in line["bytes_by_client"]}
        kilobytes = disk_bytes(folder / "clients") / 1e3
    return Measured(
        start_seconds=written[0] - first["round_seconds"] - started,
        round_seconds=(written[-1] - written[WARM_UP_ROUNDS]) / (rounds - 1 - WARM_UP_ROUNDS),
        end_seconds=ended - written[-1],
        peak_mb=peak / 1e6,
        participants=len(asked),
        client_kb=kilobytes / len(asked),
    )


def command(clients: int, rounds: int, critic_width: int) -> list[str]:
    """Return the command line of a run, but for its folder."""
    data = Path(os.environ.get("FED_GSWGAN_DATA", ""), "FedEMNIST")
    settings = {
        "dataset": "fed-emnist" if data.is_dir() else "digits",
        "virtual-clients": clients,
        "cohort-size": COHORT,
        "critic-width": critic_width,
        "rounds": rounds,
        "evaluation-samples": 0,
    }
    words = [sys.executable, "-m", "simulations.run", "--runtime", "in-process"]
    words += ["--config", "simulations/configs/digits.toml"]
    return words + [f"--set={key}={value}" for key, value in settings.items()]


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes on disk, its own entries included."""
    return sum(512 * path.stat().st_blocks for path in (folder, *folder.rglob("*")))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and all its descendants; pages they share twice."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, map(int, children)))


if __name__ == "__main__":
    main()
