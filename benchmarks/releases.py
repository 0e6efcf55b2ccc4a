"""Quality against the number of private releases of a user: the paper's generator step and ours.

Every client is asked in every round, so a round is a release. Ours fits a gradient field to
releases written in low frequencies (docs/performance.md); noise and sensitivity, and so the epsilon
of a release, are the same. Both are measured as they grow: a run is resumed from point to point.

Usage: python -m benchmarks.releases [--data digits|qmnist] [--releases 240] [--seeds 2]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.simulated import side_by_side, simulate

PAPER = {"release-use": "step", "dct-frequencies": 0, "critic-steps": 5}
OURS = {
    "release-use": "field",
    "dct-frequencies": 8,
    "clipping-bound": 0.1,  # every row reaches it, so the noise, relative to it, is the same
    "critic-steps": 20,  # of the device's time alone
    "ema-halflife-steps": 20.0,  # five releases; the paper's step: ten
}
DATA = {
    "digits": {"dataset": "digits", "classes": "digits", "cohort-size": 14},
    # A tenth of the 539 writers, so that a round of all of them takes seconds.
    "qmnist": {"dataset": "qmnist", "classes": "digits", "max-clients": 54, "cohort-size": 54},
}
SHARED = {
    "batch-size": 32,
    "generator": "slim",
    "generator-width": 32,
    "latent-dim": 16,
    "latent-kind": "normal",
    "critic": "mlp",
    "critic-width": 256,
    "noise-source": "seeded",
    "evaluation-samples": 4000,
    "checkpoint-every": 1000,
    "samples-every": 1000,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATA), default="digits")
    parser.add_argument("--releases", type=int, default=0, help="N; default 240, of qmnist 60")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    most = options.releases or {"digits": 240, "qmnist": 60}[options.data]
    points = {"paper": (most // 4, most), "ours": (most // 4,)}
    methods = {"paper": PAPER, "ours": OURS}

    def measure(job: tuple[str, int]) -> list[dict[str, float]]:
        """Return the metrics of one method and seed, as they are after each number of releases."""
        name, seed = job
        settings = SHARED | DATA[options.data] | methods[name] | {"seed": seed}
        with tempfile.TemporaryDirectory() as parent:
            run = Path(parent) / "run"
            return [simulate(run, settings | {"rounds": n})["metrics"] for n in points[name]]

    jobs = [(name, seed) for name in points for seed in range(options.seeds)]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for (name, _), metrics in zip(jobs, side_by_side(measure, jobs), strict=True):
        for releases, one in zip(points[name], metrics, strict=True):
            found.setdefault((name, releases), []).append(one)
    print(f"{options.data}, {options.seeds} seeds, mean (least to most)\n")
    print(f"{'method':<8}{'releases':>9}  {'label agreement':<26}{'Fréchet distance':<26}")
    for name, rounds in found:
        print(f"{name:<8}{rounds:>9}  {line(found, name, rounds)}")
    pairs = list(zip(found["ours", most // 4], found["paper", most], strict=True))  # by seed
    gain = [o["label_agreement"] - p["label_agreement"] for o, p in pairs]
    ratio = [o["frechet_distance"] / p["frechet_distance"] for o, p in pairs]
    print(f"\nours after {most // 4} releases against the paper's step after {most}:")
    print(f"label agreement, difference: {spread(gain)}(goal: >= 0)")
    print(f"Fréchet distance, ratio:     {spread(ratio)}(goal: <= 1)")


def line(found: dict[tuple[str, int], list[dict[str, float]]], name: str, rounds: int) -> str:
    """Return both metrics, each with its spread over seeds."""
    metrics = found[name, rounds]
    return spread([m["label_agreement"] for m in metrics]) + spread(
        [m["frechet_distance"] for m in metrics]
    )


def spread(values: list[float]) -> str:
    """Return mean, least and most."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})".ljust(26)


if __name__ == "__main__":
    main()
