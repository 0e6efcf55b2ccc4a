"""The paper's table 4, federated methods on writers: ``python -m simulations.compare``."""

import argparse
import sys
from pathlib import Path

from fed_gswgan.privacy.refusals import Refusal
from simulations.federated_presets import METHODS
from simulations.table4 import Table4


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing and print the table; return 0, 1 for a failure, 2 for bad input."""
    options = _parser().parse_args(arguments)
    folder = options.output or Path("results") / f"table4-{options.dataset}-{options.preset}"
    try:
        table = Table4(
            dataset=options.dataset,
            preset=options.preset,
            methods=tuple(name for name in options.methods.split(",") if name),
            seeds=options.seeds,
            runtime=options.runtime,
            folder=folder,
            data_dir=options.data_dir,
        )
        table.run()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((folder / "table.md").read_text() + f"written to {folder}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulations.compare", description=__doc__)
    parser.add_argument("--dataset", choices=("fed-emnist",), default="fed-emnist")
    parser.add_argument("--preset", choices=("small", "full"), default="small")
    parser.add_argument(
        "--methods", default=",".join(METHODS["small"]),
        help=f"comma between them: {', '.join(METHODS['small'])}",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runtime", choices=("ray", "in-process"), default="ray")
    parser.add_argument("--data-dir", default="", help="default: FED_GSWGAN_DATA")
    parser.add_argument("--output", type=Path, help="folder to write to, and to go on in")
    return parser


if __name__ == "__main__":
    sys.exit(main())
