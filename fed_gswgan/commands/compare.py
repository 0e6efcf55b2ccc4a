"""``fed-gswgan compare``: the paper's table of centralised methods."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from fed_gswgan.baselines.registry import METHODS


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    compare = commands.add_parser("compare", help="the paper's first table").add_subparsers(
        required=True, metavar="TABLE"
    )
    parser = compare.add_parser("table1", help="centralised methods at a true epsilon")
    parser.add_argument("--dataset", choices=("mnist", "fashion-mnist"), required=True)
    parser.add_argument("--preset", choices=("small", "full"), default="small")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help=f"comma between them: {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--epsilon", type=_numbers, default=(10.0,), metavar="EPSILON[,...]",
        help="the true one, of a record; several make curves",
    )  # fmt: skip
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--seeds", type=int, default=0, help="0: as many as each method's preset")
    parser.add_argument("--data-dir", type=Path, help="default: FED_GSWGAN_DATA")
    parser.add_argument("--output", type=Path, help="folder to write to, and to go on in")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=table1, render=_text)


def table1(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing of the first table and return its rows."""
    import torch
    from rich.console import Console

    from fed_gswgan.comparison.table1 import Table1

    folder = options.output or Path("results") / f"table1-{options.dataset}-{options.preset}"
    table = Table1(
        dataset=options.dataset,
        data_dir=options.data_dir,
        preset=options.preset,
        methods=_names(options.methods),
        epsilons=options.epsilon,
        delta=options.delta,
        seeds=options.seeds,
        folder=folder,
        workers=options.workers,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    return {"folder": str(folder), **table.run(Console(file=sys.stderr))}


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _text(found: dict[str, Any]) -> str:
    folder = Path(found["folder"])
    return (folder / "table.md").read_text() + f"written to {folder}"
