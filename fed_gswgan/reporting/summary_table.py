"""The end of a run on a terminal: what it reached, cost, and what its epsilon means."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

METRICS = ("downstream_accuracy", "label_agreement", "inception_score", "frechet_distance")


def print_summary(summary: dict[str, Any], folder: Path, console: Console) -> None:
    """Print the summary's table, the privacy statement, and where the files are."""
    table = Table(title=f"{summary['dataset']}: {summary['rounds']} rounds on {summary['runtime']}")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in _rows(summary):
        table.add_row(name, value)
    console.print(table)
    lines = list(summary["privacy"]["statement"])
    lines += [f"samples: {path}" for path in sorted((folder / "samples").glob("*.png"))[-1:]]
    lines += [f"summary: {folder / 'summary.json'}"]
    lines += [f"TensorBoard: tensorboard --logdir {folder / 'tensorboard'}"]
    for line in lines:  # unwrapped, so that a path can be pasted
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _metric(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    metrics, sizes, replies = summary["metrics"], summary["bytes"], summary["replies"]
    privacy = summary["privacy"]
    median = privacy["epsilon_median"]
    return [
        ("clients, cohort", f"{summary['clients']}, {summary['cohort_size']}"),
        ("public prior", summary["prior"]),
        ("seconds of training", f"{summary['seconds']:.0f}"),
        *((name.replace("_", " "), _metric(metrics[name])) for name in METRICS),
        ("epsilon of the worst user", f"{privacy['epsilon_max']:.5g}"),
        ("median epsilon", "not known" if median is None else f"{median:.5g}"),
        ("by the server's own count", f"{privacy['epsilon_server_bound']:.5g}"),
        ("noise", "seeded: protects nobody" if privacy["seeded_noise"] else "secure"),
        ("downlink", f"{sizes['downlink_total'] / 1e6:.2f} MB"),
        ("uplink", f"{sizes['uplink_total'] / 1e6:.2f} MB"),
        ("bytes against sending models", f"{sizes['model_exchange_ratio']:.3f}"),
        ("replies", f"{replies['received']} received, {replies['failed']} failed, "
                    f"{replies['malformed']} malformed, {replies['missing']} missing"),
    ]  # fmt: skip
