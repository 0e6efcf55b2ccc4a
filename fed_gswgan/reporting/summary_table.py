"""The end of a run on a terminal: what it reached, cost, and what its epsilon means."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fed_gswgan.reporting.run_folder import REPORT, SIDE_BY_SIDE, SUMMARY

METRICS = (
    "frechet_distance", "kernel_distance", "stroke_frechet_distance", "label_agreement",
    "downstream_accuracy", "inception_score", "within_class_variance",
)  # fmt: skip


def print_summary(summary: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print metrics beside those of the references, cost, privacy, and where the files are."""
    title = f"{summary['dataset']}: {summary['rounds']} rounds on {summary['runtime']}"
    columns, rows = metric_rows(summary)
    for header, body in ((columns, rows), ((), [(n, (v,)) for n, v in summary_rows(summary)])):
        table = Table("", title=title)
        for column in header or ("",):
            table.add_column(column, justify="right")
        for name, values in body:
            table.add_row(name, *values)
        if body:
            console.print(table)
    lines = [*summary["notes"], *summary["privacy"]["statement"]]
    files = {
        "samples": max((folder / "samples").glob("*.png"), default=None),
        "samples beside prior and real images": folder / SIDE_BY_SIDE,
        "summary": folder / SUMMARY,
        "report, for a browser": folder / REPORT,
    }
    lines += [f"{title}: {path}" for title, path in files.items() if path and path.exists()]
    lines += [
        "TensorBoard: " + shlex.join(["tensorboard", "--logdir", str(folder / "tensorboard")])
    ]
    for line in lines:  # unwrapped, so that a path can be pasted
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def metric_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return columns, samples and what they stand beside, and the rows: name and values.

    No row where nothing was measured.
    """
    columns = {"samples": summary["metrics"], **summary["references"]}
    rows = [
        (name.replace("_", " "), [_number(of.get(name)) for of in columns.values()])
        for name in METRICS
    ]
    measured = any(summary["metrics"].get(name) is not None for name in METRICS)
    return list(columns), rows if measured else []


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}" if value < 0.1 else f"{value:.3f}"


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a run was and what it cost, by name."""
    sizes, replies, privacy = summary["bytes"], summary["replies"], summary["privacy"]
    median = privacy["epsilon_median"]
    return [
        ("clients, cohort", f"{summary['clients']}, {summary['cohort_size']}"),
        ("public prior", summary["prior"]),
        ("seconds of training", f"{summary['seconds']:.0f}"),
        ("epsilon of the worst user", f"{privacy['epsilon_max']:.5g}"),
        ("median epsilon", "not known" if median is None else f"{median:.5g}"),
        ("by the server's own count", f"{privacy['epsilon_server_bound']:.5g}"),
        ("noise", "seeded: protects nobody" if privacy["seeded_noise"] else "secure"),
        ("downlink", f"{sizes['downlink_total'] / 1e6:.2f} MB"),
        ("uplink", f"{sizes['uplink_total'] / 1e6:.2f} MB"),
        ("of the busiest user, in all", f"{most_of_a_client(sizes['by_client']) / 1e3:.1f} kB"),
        ("bytes against sending models", f"{sizes['model_exchange_ratio']:.3f}"),
        ("replies", f"{replies['received']} received, {replies['failed']} failed, "
                    f"{replies['malformed']} malformed, {replies['missing']} missing"),
        *((f"{title} to the nearest training image (not private)",
           f"median {of['median']:.2f}, first percentile {of['first_percentile']:.2f}")
          for title, of in summary["nearest_training_image"].items()),
    ]  # fmt: skip


def most_of_a_client(by_client: Mapping[str, Mapping[str, int]]) -> int:
    """Return the bytes, down and up together, of the client with most."""
    return max((sum(of.values()) for of in by_client.values()), default=0)
