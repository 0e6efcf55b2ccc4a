"""Bytes against quality, in one run: how samples and gradients are written, at the same privacy.

The last column compares a participation with FedAvg-GAN's at its published network sizes: generator
and critic down, the critic's update up, in float32.

Usage: python -m benchmarks.bytes [--rounds 40] [--seeds 2]
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.releases import DATA, OURS, SHARED, spread
from benchmarks.simulated import simulate
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
        summaries = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as parent:
                summaries.append(simulate(Path(parent) / "run", settings | {"seed": seed}))
            print(f"{down}, {up}: seed {seed} done", file=sys.stderr, flush=True)
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


if __name__ == "__main__":
    main()
