"""Results of a comparison: a folder of finished cells, and rows as Markdown, CSV and JSON."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from fed_gswgan.reporting.run_folder import replace_file, replace_json

Row = Mapping[str, Any]
Column = tuple[str, str, int | None]
"""Title, key in a row, digits (None: written as it is)."""


class ResultsFolder:
    """Folder of one comparison, which continues there after a stop.

    ``settings.json`` says what is compared. ``cells/`` holds a JSON file for each finished cell,
    ``samples/`` a few of its samples, ``logs/`` its progress.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, settings: Row) -> None:
        """Create the folder, or check that it holds the same comparison.

        Raises:
            ValueError: a setting differs; the error names it.
        """
        path = self.folder / "settings.json"
        for name in ("cells", "samples", "logs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_json(path, settings)
            return
        kept = json.loads(path.read_text())
        for name in sorted({*kept, *settings}):
            asked, there = settings.get(name), kept.get(name)
            if asked != there:
                raise ValueError(
                    f"{name.replace('_', '-')}={asked} must be {there}, as in {path}: name another "
                    "output folder for another comparison"
                )

    def keep(self, name: str, measured: Row) -> None:
        """Write a finished cell, in one piece."""
        replace_json(self.folder / "cells" / f"{name}.json", measured)

    def read(self, name: str) -> dict[str, Any]:
        """Return a finished cell; any other raises FileNotFoundError."""
        return dict(json.loads((self.folder / "cells" / f"{name}.json").read_text()))

    def finished(self, name: str, settings: Row) -> bool:
        """Tell whether the cell is finished under these settings; under others it runs again."""
        exists = (self.folder / "cells" / f"{name}.json").exists()
        return exists and self.read(name).get("settings") == json.loads(json.dumps(settings))

    def keep_samples(self, name: str, samples_LNHW: np.ndarray) -> None:
        """Write bytes for a picture, (classes, per class, H, W)."""
        np.savez_compressed(self.folder / "samples" / f"{name}.npz", samples=samples_LNHW)

    def samples(self, name: str) -> np.ndarray | None:
        """Return the kept samples of a cell; None for a cell without."""
        path = self.folder / "samples" / f"{name}.npz"
        return np.load(path)["samples"] if path.exists() else None

    def progress_log(self, name: str) -> Callable[[str], None]:
        """Return a function that appends a line, with the seconds elapsed, to a new log."""
        path, started = self.folder / "logs" / f"{name}.log", time.monotonic()
        path.write_text("")

        def log(line: str) -> None:
            with path.open("a") as file:
                file.write(f"{time.monotonic() - started:8.1f} s  {line}\n")

        return log


def spreads(columns: Sequence[Column], cells: Sequence[Row]) -> dict[str, float | None]:
    """Return mean and sample standard deviation over seeds, for a row of a table.

    The deviation of a metric ``key`` stands under ``key_deviation``; a single seed has None. A
    metric without a value in some cell is left out.

    Args:
        columns: of the table; those that are no metric are ignored.
        cells: results of one method, one for each seed, with their ``metrics``.
    """
    row: dict[str, float | None] = {}
    for _, key, _ in columns:
        values = [cell["metrics"].get(key) for cell in cells]
        if None not in values:
            row[key] = mean(values)
            row[f"{key}_deviation"] = stdev(values) if len(values) > 1 else None
    return row


def write_tables(
    found: Row, folder: Path, columns: Sequence[Column], title: str, name: str = "table"
) -> None:
    """Write ``NAME.md`` of the columns, and ``NAME.csv`` and ``NAME.json`` of every key.

    ``found`` holds ``rows`` and ``notes``, with the settings beside them.
    """
    replace_file(folder / f"{name}.md", markdown(found, columns, title).encode())
    replace_file(folder / f"{name}.csv", _csv(found["rows"]).encode())
    replace_json(folder / f"{name}.json", found)


def markdown(found: Row, columns: Sequence[Column], title: str) -> str:
    """Return the table as Markdown, with its notes below."""
    lines = [[name for name, _, _ in columns], ["---"] * len(columns)]
    lines += [[_text(row, key, digits) for _, key, digits in columns] for row in found["rows"]]
    published = [row.get("published", {}) for row in found["rows"]]
    if any(published):
        lines[0].append("as published")
        lines[1].append("---")
        for line, row in zip(lines[2:], published, strict=True):
            line.append(", ".join(f"{name} {value:g}" for name, value in row.items()) or "-")
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"# {title}", "", *table, "", *(f"- {n}" for n in found["notes"]), ""])


def _text(row: Row, key: str, digits: int | None) -> str:
    value, deviation = row.get(key), row.get(f"{key}_deviation")
    if value is None:
        return "-"
    if digits is None:
        return str(value)
    if abs(value) >= 1e5:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def _csv(rows: Sequence[Row]) -> str:
    flat = [{k: v for k, v in row.items() if not isinstance(v, Mapping)} for row in rows]
    text = io.StringIO()
    names = dict.fromkeys(name for row in flat for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
