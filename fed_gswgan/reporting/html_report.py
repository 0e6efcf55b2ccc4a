"""A run in one file that any browser shows: pictures, curves, metrics, cost, privacy, settings."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from fed_gswgan.config import Config
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.reporting.explanation import explanation_of_run, explanation_text
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import REPORT, SIDE_BY_SIDE, config_of_run, replace_file
from fed_gswgan.reporting.summary_table import metric_rows, summary_rows

MOST_PICTURES = 12  # of the samples over the rounds

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ccc; padding: .2rem .8rem .2rem 0; text-align: left;
  vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: 0 1rem 1rem 0; }
img { max-width: 100%; }
.samples img { image-rendering: pixelated; }
pre { overflow-x: auto; background: #f6f6f6; padding: 1rem; }
.changed { font-weight: bold; }
</style>
</head>
<body>
<h1>{{ title }}</h1>

<h2>Privacy</h2>
{% for line in statement %}<p>{{ line }}</p>
{% endfor %}

{% if side_by_side %}<h2>Samples</h2>
<figure class="samples"><img src="{{ side_by_side }}" alt="Samples beside the prior's and beside \
real images, a row for each class"></figure>
{% endif %}

{% for note in notes %}<p><strong>{{ note }}</strong></p>
{% endfor %}
{% if metrics %}<h2>Metrics on held-out images</h2>
<table>
<tr><th></th>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for name, values in metrics %}<tr><td>{{ name }}</td>
{% for value in values %}<td class="number">{{ value }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>{{ judge }}</p>
{% endif %}

<h2>Cost</h2>
<table>
{% for name, value in cost %}<tr><td>{{ name }}</td><td class="number">{{ value }}</td></tr>
{% endfor %}</table>

<h2>Over the rounds</h2>
{% for name, curve in curves %}<figure><img src="{{ curve }}" alt="{{ name }} against rounds">
</figure>
{% endfor %}
{% for name, picture in pictures %}<figure class="samples"><img src="{{ picture }}" \
alt="Samples after {{ name }}"><figcaption>after {{ name }}</figcaption></figure>
{% endfor %}

{% if explained %}<h2>Epsilon, step by step</h2>
<pre>{{ explained }}</pre>
{% endif %}

<h2>Settings</h2>
<p>Bold: not the default.</p>
<table>
{% for key, value, changed in settings %}<tr{% if changed %} class="changed"{% endif %}>\
<td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
</body>
</html>
"""


def write_report(run: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    Nothing outside the file is needed to show it: pictures and curves are in it.

    Args:
        run: folder of the run.
        summary: what ``summary.json`` holds.
    """
    rounds, beside = read_rounds(run), run / SIDE_BY_SIDE
    columns, metrics = metric_rows(summary)
    page = Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    text = page.render(
        title=f"{summary['dataset']}: {summary['algorithm']}, {summary['rounds']} rounds, "
        f"{summary['clients']} clients",
        statement=summary["privacy"]["statement"],
        side_by_side=_png(beside) if beside.exists() else "",
        notes=summary["notes"],
        columns=columns,
        metrics=metrics,
        judge=summary["metrics"].get("judge_note", ""),
        cost=summary_rows(summary),
        curves=[(name, _curve(name, *points)) for name, points in _curves(rounds).items()],
        pictures=[(f"round {int(path.stem.rpartition('-')[2])}", _png(path))
                  for path in _some(sorted((run / "samples").glob("*.png")))],
        explained=_explained(run),
        settings=_settings(run),
    )  # fmt: skip
    replace_file(run / REPORT, text.encode())
    return run / REPORT


def _curves(rounds: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Return what was written down in each round: name, rounds and values; the cost adds up."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    total = 0.0
    for line in rounds:
        total += (line["uplink_bytes"] + line["downlink_bytes"]) / 1e6
        measured = {
            **line.get("evaluation", {}),
            "epsilon of the user asked most": line["epsilon_server_bound"],
            "MB of all users": total,
            "replies": line["received"],
            "seconds": line["round_seconds"],
            **line["metrics"],
        }
        for name, value in measured.items():
            if value is not None:
                xs, ys = curves.setdefault(name.replace("_", " "), ([], []))
                xs.append(line["server_round"])
                ys.append(value)
    return curves


def _curve(name: str, rounds: Sequence[int], values: Sequence[float]) -> str:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rounds, values, marker="o" if len(rounds) < 20 else "", markersize=4)
    axes.set_title(name, fontsize="small")
    axes.set_xlabel("round", fontsize="small")
    axes.tick_params(labelsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg")
    return _data("image/svg+xml", drawn.getvalue())


def _some(paths: list[Path]) -> list[Path]:
    """Return at most so many of the pictures, the first and the last among them."""
    last = len(paths) - 1
    if last < MOST_PICTURES:
        return paths
    places = {round(place * last / (MOST_PICTURES - 1)) for place in range(MOST_PICTURES)}
    return [paths[place] for place in sorted(places)]


def _explained(run: Path) -> str:
    """Return the steps to epsilon of the user who spent most; empty if ledgers are elsewhere."""
    try:
        return explanation_text(explanation_of_run(run))
    except (FileNotFoundError, LedgerUnavailable):
        return ""


def _settings(run: Path) -> list[tuple[str, Any, bool]]:
    """Return each setting with its value, and whether that is not the default."""
    settings = config_of_run(run)
    defaults = Config.from_table({"algorithm": settings["algorithm"]}).to_table()
    return [(key, value, value != defaults.get(key)) for key, value in sorted(settings.items())]


def _png(path: Path) -> str:
    return _data("image/png", path.read_bytes())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
