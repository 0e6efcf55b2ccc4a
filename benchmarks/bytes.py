"""Bytes against quality, in one run: how samples and gradients are written, at the same privacy.

The last column compares a participation with FedAvg-GAN's at its published network sizes: generator
and critic down, the critic's update up, in float32.

Usage: python -m benchmarks.bytes [--rounds 40] [--seeds 2]
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.releases import DATA, OURS, SHARED, spread
from benchmarks.simulated import side_by_side, simulate
from fed_gswgan.comparison.published_sizes import published_bytes

# Frequencies of each axis (0: pixels), downlink codec, uplink codec.
WAYS = (
    (0, "float32", "float32"),
    (8, "float32", "float32"),
    (8, "uint8-deflate", "uint8"),
    (8, "uint8-deflate", "uint4"),
    (8, "uint4-deflate", "uint1"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    published = published_bytes()
    print(
        f"digits, {options.rounds} releases of each user, {options.seeds} seeds; bytes of a "
        f"participation; FedAvg-GAN published: {published.downlink:,} down, {published.uplink:,} up"
    )
    print(
        f"\n{'basis':<7}{'down':<15}{'up':<9}{'down B':>9}{'up B':>9}{'1 / up':>9}{'1 / both':>10}"
        f"  {'label agreement':<26}{'Fréchet distance':<26}"
    )
    for frequencies, down, up in WAYS:
        settings = SHARED | DATA["digits"] | OURS | {
            "rounds": options.rounds, "dct-frequencies": frequencies,
            "downlink-codec": down, "uplink-codec": up,
        }  # fmt: skip
        runs = [settings | {"seed": seed} for seed in range(options.seeds)]
        summaries = side_by_side(summary_of, runs)
        sent = statistics.mean(s["bytes"]["downlink_per_request"] for s in summaries)
        received = statistics.mean(s["bytes"]["uplink_per_reply"] for s in summaries)
        basis = f"{frequencies}x{frequencies}" if frequencies else "pixels"
        print(
            f"{basis:<7}{down:<15}{up:<9}{sent:>9,.0f}{received:>9,.0f}"
            f"{published.uplink / received:>9,.0f}"
            f"{sum(published) / (sent + received):>10,.0f}  "
            + "".join(
                spread([s["metrics"][metric] for s in summaries])
                for metric in ("label_agreement", "frechet_distance")
            ),
            flush=True,
        )


def summary_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a run, which leaves nothing else behind."""
    with tempfile.TemporaryDirectory() as parent:
        return simulate(Path(parent) / "run", settings)


if __name__ == "__main__":
    main()
