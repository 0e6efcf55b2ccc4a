"""Plots of a comparison: quality against epsilon and against bytes, epsilon against rounds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_gswgan.reporting.round_log import read_rounds


def save_curves(
    folders: Mapping[str, Path], rows: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Write three PNGs: quality-against-epsilon, quality-against-bytes, epsilon-against-rounds.

    Args:
        folders: title to the folder of a run, whose ``rounds.jsonl`` is read.
        rows: of the table; one without a Fréchet distance has no point.
        folder: of the pictures.
    """
    measured = [row for row in rows if "frechet_distance" in row]
    _save(
        folder / "quality-against-epsilon.png",
        {row["method"]: ([row["epsilon_replace_one"]], [row["frechet_distance"]])
         for row in measured},
        "epsilon (replace-one) of the worst user", "Fréchet distance",
    )  # fmt: skip
    _save(
        folder / "quality-against-bytes.png",
        {row["method"]: ([row["uplink_kilobytes"] + row["downlink_kilobytes"]],
                         [row["frechet_distance"]]) for row in measured},
        "kB a participation, both ways", "Fréchet distance",
    )  # fmt: skip
    _save(
        folder / "epsilon-against-rounds.png",
        {title: _epsilons(path) for title, path in folders.items()},
        "round", "epsilon of the worst user, by the server's count",
    )  # fmt: skip


def save_quality_against_epsilon(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG of the CNN accuracy of each method against its true epsilon and its relation.

    Args:
        rows: of table 1, in any order; real images are a line across.
        path: of the PNG.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    level = None
    for row in sorted(rows, key=lambda row: row.get("epsilon", 0.0)):
        if "epsilon" not in row:
            level = (row["method"], row["cnn_accuracy"])
            continue
        title = f"{row['method']} ({row['neighboring_relation']})"
        epsilons, accuracies = curves.setdefault(title, ([], []))
        epsilons.append(row["epsilon"])
        accuracies.append(row["cnn_accuracy"])
    _save(path, curves, "true epsilon", "CNN accuracy", y_scale="linear", level=level)


def _epsilons(run: Path) -> tuple[list[float], list[float]]:
    rounds = read_rounds(run)
    return (
        [line["server_round"] for line in rounds],
        [line["epsilon_server_bound"] for line in rounds],
    )


def _save(
    path: Path,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    y_scale: str = "log",
    level: tuple[str, float] | None = None,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for title, (xs, ys) in curves.items():
        axes.plot(xs, ys, marker="o" if len(xs) < 20 else "", label=title)
    if level:
        axes.axhline(level[1], linestyle="dotted", color="black", label=level[0])
    axes.set(xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png")
