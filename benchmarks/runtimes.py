"""Seconds a round on Ray and in process, on the demo's settings, in one run: a table and a ratio.

Usage: python -m benchmarks.runtimes [--rounds 30] [--repeats 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    medians: dict[str, list[float]] = {"ray": [], "in-process": []}
    for repeat in range(options.repeats):
        for runtime, found in medians.items():
            found.append(median_round_seconds(runtime, options.rounds))
            print(f"repeat {repeat + 1}: {runtime}: {found[-1]:.3f} s a round", flush=True)
    print(f"\n{'runtime':<12}{'median s':>10}{'least':>10}{'most':>10}")
    for runtime, found in medians.items():
        print(
            f"{runtime:<12}{statistics.median(found):>10.3f}{min(found):>10.3f}{max(found):>10.3f}"
        )
    ratios = [one / two for one, two in zip(medians["in-process"], medians["ray"], strict=True)]
    print(
        f"in-process over ray: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}); two actors on two cores would give 2"
    )


def median_round_seconds(runtime: str, rounds: int) -> float:
    """Run the demo for some rounds and return the median of those after the warm-up."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        command = [
            sys.executable, "-m", "simulations.run", "--config", "simulations/configs/demo.toml",
            "--runtime", runtime, "--output", str(folder),
            "--set", f"rounds={rounds}", "--set", "evaluation-samples=0",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        lines = (folder / "rounds.jsonl").read_text().splitlines()[WARM_UP_ROUNDS:]
    return statistics.median(json.loads(line)["round_seconds"] for line in lines)


if __name__ == "__main__":
    main()
