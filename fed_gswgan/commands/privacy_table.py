"""``fed-gswgan privacy table``: the epsilon that populations of different sizes can have."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation
from fed_gswgan.privacy.reachable import CENTRAL_SAMPLING, reachable
from fed_gswgan.privacy.trust import TrustModel, must_be_believed

POPULATIONS = (100, 1_000, 10_000, 100_000, 1_000_000)
COLUMNS = {
    "population": "population",
    "delta": "delta",
    "cohort": "cohort",
    "participations": "replies",
    "local_sample": "local sample",
    "local_message": "local message",
    "secure_aggregation": "secure agg.",
    "central": "central",
}


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("table", help="epsilon that populations of some sizes can have")
    parser.add_argument("--populations", type=int, nargs="+", default=list(POPULATIONS))
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--cohort", type=int, default=100, help="users in a round")
    parser.add_argument("--samples", type=int, default=32, help="rows of a reply")
    parser.add_argument(
        "--noise-stddev", type=float, default=2.14, help="of a client, in units of C"
    )
    parser.add_argument(
        "--neighboring",
        choices=[str(relation) for relation in NeighboringRelation],
        default=str(NeighboringRelation.REPLACE_ONE),
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw it too")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=privacy_table, render=_text)


def privacy_table(options: argparse.Namespace) -> dict[str, Any]:
    """Return a row for each population, and what each column asks to believe."""
    if options.plot is not None and options.plot.suffix != ".png":
        raise ValueError(f"plot={options.plot} must end in .png")
    relation = NeighboringRelation(options.neighboring)
    event = SanitizedGradientEvent(
        samples=options.samples,
        clipping="sample",
        clipping_bound=1.0,
        noise_stddev=options.noise_stddev,
    )
    rows = [
        asdict(reachable(population, options.cohort, options.rounds, event, relation))
        for population in options.populations
    ]
    title = (
        f"{options.rounds} rounds of {options.cohort}, {options.samples} samples, "
        f"noise-stddev {options.noise_stddev:g}, {relation}"
    )
    if options.plot is not None:
        from fed_gswgan.reporting.reachable_plot import save_reachable_plot

        save_reachable_plot(rows, title, options.plot)
    believed = (TrustModel.LOCAL, TrustModel.SECURE_AGGREGATION, TrustModel.CENTRAL)
    return {
        "settings": title,
        "neighboring_relation": str(relation),
        "unit": "user",
        "rows": rows,
        "must_be_believed": {
            str(trust): must_be_believed(trust, CENTRAL_SAMPLING[relation]) for trust in believed
        },
    }


def _text(found: dict[str, Any]) -> str:
    cells = [list(COLUMNS.values())]
    cells += [[_cell(row[name]) for name in COLUMNS] for row in found["rows"]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"epsilon of a user; {found['settings']}", ""]
    lines += [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    ]
    lines += ["", "What must be believed:"]
    lines += [f"  {trust}: {belief}" for trust, belief in found["must_be_believed"].items()]
    return "\n".join(lines)


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
