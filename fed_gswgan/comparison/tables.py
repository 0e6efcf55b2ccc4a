"""A comparison's rows as Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_gswgan.comparison.rows import Spread
from fed_gswgan.reporting.run_folder import replace_file, replace_json

Column = tuple[str, str, int | None]
"""Title, key in a row, digits (None: written as it is)."""


def write_tables(
    found: Mapping[str, Any], folder: Path, columns: Sequence[Column], title: str
) -> None:
    """Write ``table.md``, ``table.csv`` and ``table.json``.

    Args:
        found: ``rows`` and ``notes``, with the settings beside them.
        folder: of the comparison.
        columns: of the Markdown table; CSV and JSON hold all there is.
        title: of the Markdown table.
    """
    replace_file(folder / "table.md", markdown(found, columns, title).encode())
    replace_file(folder / "table.csv", _csv(found["rows"]).encode())
    replace_json(folder / "table.json", dict(found))


def markdown(found: Mapping[str, Any], columns: Sequence[Column], title: str) -> str:
    """Return the table with its notes below."""
    with_published = any(row.get("published") for row in found["rows"])
    titles = [name for name, _, _ in columns] + (["as published"] if with_published else [])
    lines = [f"# {title}", "", _line(titles), _line(["---"] * len(titles))]
    for row in found["rows"]:
        cells = [_text(row, key, digits) for _, key, digits in columns]
        if with_published:
            cells.append(_published(row.get("published", {})))
        lines.append(_line(cells))
    lines += ["", *(f"- {note}" for note in found["notes"]), ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(row: Mapping[str, Any], key: str, digits: int | None) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if digits is None:
        return str(value)
    if abs(value) >= 1e5:
        return f"{value:.3g}"
    return Spread(mean=value, deviation=row.get(f"{key}_deviation")).text(digits)


def _published(row: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in row.items()) or "-"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [{k: v for k, v in row.items() if not isinstance(v, Mapping)} for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
