"""Quality against the number of private releases of a user: the paper's generator step and ours.

Every client is asked in every round, so a round is a release. Ours fits a gradient field to
releases written in low frequencies (docs/performance.md); noise and sensitivity, and so the epsilon
of a release, are the same. Both are measured as they grow: a run is resumed from point to point.
Ours draws its samples with more contrast; what that alone does is shown for both.

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
# Ours alone. How dark ink is differs between the sets; fifteen releases are too few to slow down.
CONTRAST = {"digits": 1.5, "qmnist": 2.0}
END_FACTOR = {"digits": 0.3, "qmnist": 1.0}
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

Point = tuple[str, int, float]  # method, releases, contrast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATA), default="digits")
    parser.add_argument("--releases", type=int, default=0, help="N; default 240, of qmnist 60")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    most = options.releases or {"digits": 240, "qmnist": 60}[options.data]
    few, more = most // 4, CONTRAST[options.data]
    # Of a run: releases, and the contrast that its samples are drawn with.
    points = {"paper": [(few, 1.0), (most, 1.0), (most, more)],
              "ours": [(few, 1.0), (few, more)]}  # fmt: skip
    end_factor = {"generator-learning-rate-end-factor": END_FACTOR[options.data]}
    methods = {"paper": PAPER, "ours": OURS | end_factor}

    def measure(job: tuple[str, int]) -> list[dict[str, float]]:
        """Return the metrics of one method and seed, as they are at each point."""
        name, seed = job
        settings = SHARED | DATA[options.data] | methods[name] | {"seed": seed}
        with tempfile.TemporaryDirectory() as parent:
            run = Path(parent) / "run"
            return [
                simulate(run, settings | {"rounds": n, "sample-contrast": contrast})["metrics"]
                for n, contrast in points[name]
            ]

    jobs = [(name, seed) for name in points for seed in range(options.seeds)]
    found: dict[Point, list[dict[str, float]]] = {}
    for (name, _), metrics in zip(jobs, side_by_side(measure, jobs), strict=True):
        for (releases, contrast), one in zip(points[name], metrics, strict=True):
            found.setdefault((name, releases, contrast), []).append(one)
    print(f"{options.data}, {options.seeds} seeds, mean (least to most)\n")
    print(f"{'method':<8}{'releases':>9}{'contrast':>10}  {'label agreement':<26}"
          f"{'Fréchet distance':<26}")  # fmt: skip
    for (name, releases, contrast), metrics in found.items():
        print(f"{name:<8}{releases:>9}{contrast:>10}  {line(metrics)}")
    for contrast in (1.0, more):
        pairs = list(
            zip(found["ours", few, more], found["paper", most, contrast], strict=True)
        )  # by seed
        gain = [o["label_agreement"] - p["label_agreement"] for o, p in pairs]
        ratio = [o["frechet_distance"] / p["frechet_distance"] for o, p in pairs]
        goal = contrast == 1.0
        print(f"\nours after {few} releases against the paper's step after {most}"
              f"{'' if goal else ' with the same contrast'}:")  # fmt: skip
        print(f"label agreement, difference: {spread(gain)}{'(goal: >= 0)' if goal else ''}")
        print(f"Fréchet distance, ratio:     {spread(ratio)}{'(goal: <= 1)' if goal else ''}")


def line(metrics: list[dict[str, float]]) -> str:
    """Return both metrics, each with its spread over seeds."""
    return spread([m["label_agreement"] for m in metrics]) + spread(
        [m["frechet_distance"] for m in metrics]
    )


def spread(values: list[float]) -> str:
    """Return mean, least and most."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})".ljust(26)


if __name__ == "__main__":
    main()
