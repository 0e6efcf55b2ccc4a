"""Bytes against quality, in one run: how samples and gradients are written, at the same privacy.

FedAvg-GAN stands beside them: its bytes are those of a participation at its published network
sizes, generator and critic down and the critic's update up, in float32; its quality is that of the
slim pair that shares our generator, after as many rounds. Its server is trusted, so its privacy is
not compared here (docs/results.md).

Usage: python -m benchmarks.bytes [--rounds 40] [--seeds 2] [--each]
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.simulated import side_by_side, simulate
from fed_gswgan.settings import Value
from simulations.tables.published import published_bytes
from simulations.tables.table4_rows import FEDAVG

SETTINGS: Mapping[str, Value] = {
    "dataset": "digits",
    "classes": "digits",
    "cohort-size": 14,
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
OURS: Mapping[str, Value] = {
    "clipping-bound": 0.1,  # every row reaches it, so the noise, relative to it, is the same
    "critic-steps": 20,  # of the device's time alone
    "ema-halflife-steps": 20.0,  # five releases
}
# Frequencies of each axis (0: pixels), downlink bits, uplink bits.
WAYS = (
    (0, 32, 32),
    (8, 32, 32),
    (8, 8, 4),
    (8, 4, 1),
)
# With --each: every number of bits by itself, beside 32 both ways.
EACH = (
    (8, 32, 8),
    (8, 32, 4),
    (8, 32, 2),
    (8, 32, 1),
    (8, 4, 32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--each", action="store_true", help="every number of bits by itself instead"
    )
    options = parser.parse_args()
    print(
        f"digits, {options.rounds} rounds of all 14 clients, {options.seeds} seeds; bytes of a "
        "participation, and FedAvg-GAN's over them"
    )
    print(
        f"\n{'basis':<7}{'down':<15}{'up':<9}{'down B':>12}{'up B':>12}{'1 / up':>9}"
        f"{'1 / both':>10}  {'label agreement':<26}{'Fréchet distance':<26}"
    )
    for frequencies, down, up in EACH if options.each else WAYS:
        settings = {
            **SETTINGS, **OURS, "rounds": options.rounds,
            "dct-frequencies": frequencies, "downlink-bits": down, "uplink-bits": up,
        }  # fmt: skip
        summaries = summaries_of(settings, options.seeds)
        basis = f"{frequencies}x{frequencies}" if frequencies else "pixels"
        sent = statistics.mean(s["bytes"]["downlink_per_request"] for s in summaries)
        received = statistics.mean(s["bytes"]["uplink_per_reply"] for s in summaries)
        print_row(basis, down, up, sent, received, summaries)
    if options.each:
        return
    fedavg = {**SETTINGS, **FEDAVG, "cohort-size": 14, "rounds": options.rounds}
    summaries = summaries_of(fedavg, options.seeds)
    print_row("FedAvg", 32, 32, *published_bytes(), summaries)


def print_row(
    basis: str, down: int, up: int, sent: float, received: float, summaries: list[dict[str, Any]]
) -> None:
    published = published_bytes()
    print(
        f"{basis:<7}{down:<15}{up:<9}{sent:>12,.0f}{received:>12,.0f}"
        f"{published.uplink / received:>9,.0f}{sum(published) / (sent + received):>10,.0f}  "
        + "".join(
            spread([s["metrics"][metric] for s in summaries])
            for metric in ("label_agreement", "frechet_distance")
        ),
        flush=True,
    )


def summaries_of(settings: Mapping[str, Any], seeds: int) -> list[dict[str, Any]]:
    return side_by_side(summary_of, [{**settings, "seed": seed} for seed in range(seeds)])


def spread(values: list[float]) -> str:
    """Return mean, least and most."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})".ljust(26)


def summary_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a run, which leaves nothing else behind."""
    with tempfile.TemporaryDirectory() as parent:
        return simulate(Path(parent) / "run", settings)


if __name__ == "__main__":
    main()
