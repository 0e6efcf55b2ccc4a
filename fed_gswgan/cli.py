"""The command ``fed-gswgan``: epsilon of a number of releases, and what a data set holds."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from fed_gswgan.config import CLASS_SETS, DATASETS, DataConfig
from fed_gswgan.privacy.accountant import local_epsilon
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 with a line that says what is wrong."""
    options = _parser().parse_args(arguments)
    try:
        result = options.command(options)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        print(f"fed-gswgan: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result, allow_nan=False))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    return 0


def privacy_epsilon(options: argparse.Namespace) -> dict[str, Any]:
    """Return epsilon, and what it was computed from."""
    if options.trust == "local" and options.honest != 1:
        raise ValueError(f"honest={options.honest} must be 1 under trust=local; it adds no noise")
    event = SanitizedGradientEvent(
        samples=options.samples,
        clipping=options.clipping,
        clipping_bound=1.0,
        noise_stddev=options.noise_stddev,
    )
    relation = NeighboringRelation(options.neighboring)
    epsilon = local_epsilon(event, options.participations, relation, options.delta, options.honest)
    mu = event.mu(relation) * (options.participations / options.honest) ** 0.5
    return {
        "epsilon": epsilon,
        "delta": options.delta,
        "mu": mu,
        "noise_multiplier": 1 / mu if mu else None,
        "trust_model": options.trust,
        "neighboring_relation": str(relation),
        "unit": "user",
        "participations": options.participations,
        "honest": options.honest,
        "method": "exact Gaussian (Balle and Wang, arXiv 1805.06530)",
    }


def data(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a data set holds: what a run would see, none of it from a shard."""
    from fed_gswgan.data.writer_source import open_source

    source = open_source(
        DataConfig(
            dataset=options.dataset,
            data_dir=options.data_dir,
            classes=options.classes,
            min_images_per_writer=options.min_images_per_writer,
        )
    )
    return {
        "dataset": source.name,
        "user": source.unit,
        "clients": len(source.writer_ids),
        "classes": len(source.class_names),
        "held_out_writers": len(source.held_out_writers),
        "held_out_images": len(source.held_out().labels),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fed-gswgan", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    privacy = commands.add_parser("privacy", help="what releases cost").add_subparsers(
        required=True, metavar="COMMAND"
    )
    epsilon = privacy.add_parser("epsilon", help="epsilon of a number of equal replies of a user")
    epsilon.add_argument("--trust", choices=("local", "secure-aggregation"), required=True)
    epsilon.add_argument("--clipping", choices=("sample", "message"), default="sample")
    epsilon.add_argument(
        "--noise-stddev", type=float, required=True, help="on a coordinate, in units of C"
    )
    epsilon.add_argument("--samples", type=int, required=True, help="rows of a reply")
    epsilon.add_argument("--participations", type=int, required=True, help="replies of the user")
    epsilon.add_argument(
        "--honest", type=int, default=1, help="honest survivors in every secure sum"
    )
    epsilon.add_argument("--delta", type=float, required=True)
    epsilon.add_argument(
        "--neighboring", choices=[str(relation) for relation in NeighboringRelation], required=True
    )
    epsilon.add_argument("--json", action="store_true")
    epsilon.set_defaults(command=privacy_epsilon)

    describe = commands.add_parser("data", help="what a data set holds")
    describe.add_argument("dataset", choices=DATASETS)
    describe.add_argument("--data-dir", default="")
    describe.add_argument("--classes", choices=CLASS_SETS, default="all")
    describe.add_argument("--min-images-per-writer", type=int, default=1)
    describe.add_argument("--json", action="store_true")
    describe.set_defaults(command=data)
    return parser


if __name__ == "__main__":
    sys.exit(main())
