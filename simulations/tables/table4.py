"""The paper's fourth table: federated methods beside each other, on the writers of Fed-EMNIST.

``table4_rows.py`` says what each method runs with. A cell is a run of a method from one seed; one
more measures the prior and real images; and one for each method finds its best contrast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.data.registry import open_source
from fed_gswgan.device.doctor import trial_update
from fed_gswgan.evaluation.report import held_out_judge
from fed_gswgan.evaluation.samplers import draw_samples, proportional_labels
from fed_gswgan.models.trainer import with_contrast
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.reporting.pictures import (
    drawn_for_picture,
    drawn_samples,
    save_curves,
    save_side_by_side,
)
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import config_of_run
from fed_gswgan.reporting.summary_table import most_of_a_client
from fed_gswgan.reporting.trained_generator import load_generator
from fed_gswgan.secure_aggregation.protocol import bytes_beside_payload
from fed_gswgan.settings import Value
from fed_gswgan.validation import at_least, one_of
from server.evaluation import CLIENTS, PRIOR, Evaluation
from simulations.tables.cells import Cell, FederatedRun, run_cells
from simulations.tables.published import PUBLISHED_TABLE4, published_bytes
from simulations.tables.results import Column, ResultsFolder, Row, spreads, write_tables
from simulations.tables.table4_rows import FederatedRow, rows_of

DATASET = "fed-emnist"
CONTRASTS = np.geomspace(0.25, 4.0, 97)
CONTRAST_SAMPLES = 2000
# Rows whose ratio is printed: neither side from the prior, both, and ours alone.
RIVALS = (
    ("gs-wgan", "fedavg-gan"),
    *((f"cramer-no-prior-{epsilon}", "fedavg-gan") for epsilon in (1, 10)),
    *((f"cramer-{epsilon}", "fedavg-gan-prior") for epsilon in (1, 10)),
    *((f"cramer-{epsilon}", "fedavg-gan") for epsilon in (1, 10)),
)
METRICS: tuple[Column, ...] = (
    ("IS", "inception_score", 2),
    ("Fréchet", "frechet_distance", 2),
    ("second judge", "stroke_frechet_distance", 1),
    ("kernel", "kernel_distance", 4),
    ("label agreement", "label_agreement", 3),
    ("downstream acc.", "downstream_accuracy", 3),
    ("within-class variance", "within_class_variance", 4),
)
COLUMNS: tuple[Column, ...] = (
    ("method", "method", None),
    ("trust", "trust_model", None),
    *METRICS,
    ("epsilon, replace-one", "epsilon_replace_one", 1),
    ("epsilon, zero-out", "epsilon_zero_out", 1),
    ("delta", "delta", None),
    ("replies of a user, at most", "participations_max", None),
    ("kB up", "uplink_kilobytes", 1),
    ("kB down", "downlink_kilobytes", 1),
    ("kB of a user, all", "user_kilobytes", 1),
    ("with the protocol", "protocol_kilobytes", 0),
    ("at the published size", "published_kilobytes", 0),
    ("device s of a user", "device_seconds", 2),
    ("client TFLOP", "client_teraflops", 2),
    ("seeds", "seeds", None),
    ("s to train", "training_seconds", 0),
)
CONTRAST_COLUMNS: tuple[Column, ...] = (
    ("method", "method", None),
    ("contrast", "contrast", 2),
    *METRICS,
)


@dataclass(frozen=True, kw_only=True)
class Table4:
    """Rows of the fourth table, and the folder that keeps them.

    Attributes:
        classes: ``digits`` or ``all``.
        methods: names of ``rows_of``; the prior alone and real images are always rows.
        seeds: runs of each method that does not run once.
        workers: number of cells at a time; each has one core.
        folder: where results stand.
        data_dir: of the data set; empty: FED_GSWGAN_DATA.
    """

    classes: str
    methods: tuple[str, ...]
    seeds: int
    workers: int
    folder: Path
    data_dir: str = ""

    def __post_init__(self) -> None:
        at_least(1, seeds=self.seeds)
        at_least(1, workers=self.workers)
        at_least(1, methods=len(self.methods))
        for name in self.methods:
            one_of(rows_of(self.classes), methods=name)

    def run(self, console: Console) -> dict[str, Any]:
        """Run what is not finished, write the tables after each run, and return the rows.

        Raises:
            ValueError: the folder holds another comparison, or runs of other settings.
            RuntimeError: a run failed or was interrupted.
        """
        ResultsFolder(self.folder).open({"table": 4, "dataset": DATASET, "classes": self.classes})
        references = References(comparison=self.folder, settings=self._settings("cramer-1"))
        runs = self._runs()
        cells: list[Cell] = [references, *(run for of_seed in runs for run in of_seed.values())]
        run_cells(cells, self.workers, console, lambda: self._write(references, runs))
        contrasts = [
            BestContrast(comparison=self.folder, method=name, trained=run)
            for name, run in runs[0].items()
        ]
        run_cells(contrasts, self.workers, console, lambda: self._write_contrasts(contrasts))
        self._write_contrasts(contrasts)
        found = self._write(references, runs)
        self._save_pictures(references, found["rows"], runs[0])
        return found

    def _settings(self, name: str, seed: int = 0) -> dict[str, Value]:
        place = {"data-dir": self.data_dir} if self.data_dir else {}
        return {**rows_of(self.classes)[name].settings, **place, "seed": seed}

    def _runs(self) -> list[dict[str, FederatedRun]]:
        """Return the runs of each seed, by method."""
        rows = rows_of(self.classes)
        return [
            {
                name: FederatedRun(
                    name=f"{name}-{seed}",
                    settings=self._settings(name, seed),
                    comparison=self.folder,
                )
                for name in self.methods
                if seed == 0 or not rows[name].once
            }
            for seed in range(self.seeds)
        ]

    def _write(
        self, references: "References", runs: list[dict[str, FederatedRun]]
    ) -> dict[str, Any]:
        """Write tables of the finished cells, and return the rows."""
        rows = list(references.rows())
        titles = rows_of(self.classes)
        for name in self.methods:
            of_method = [of_seed[name] for of_seed in runs if name in of_seed]
            if finished := [run for run in of_method if run.finished]:
                rows.append(_row(name, titles[name], finished))
        found = {
            "table": 4,
            "dataset": DATASET,
            "classes": self.classes,
            "rows": rows,
            "notes": _notes(rows),
        }
        write_tables(found, self.folder, COLUMNS, f"{DATASET}, {self.classes}")
        return found

    def _write_contrasts(self, contrasts: list["BestContrast"]) -> None:
        titles = rows_of(self.classes)
        rows = [
            {"method": titles[cell.method].title, "seeds": 1, **cell.read()}
            for cell in contrasts
            if cell.finished
        ]
        note = (
            f"seed 0; the contrast, from {CONTRASTS[0]:g} to {CONTRASTS[-1]:g}, at which "
            f"{CONTRAST_SAMPLES} samples are as grey as drawn characters, whose scan is that of "
            "the writers and whose letters are not"
        )
        found = {"rows": rows, "notes": [note]}
        title = f"{DATASET}, {self.classes}, each method at its best contrast"
        write_tables(found, self.folder, CONTRAST_COLUMNS, title, "contrast")

    def _save_pictures(
        self,
        references: "References",
        rows: list[dict[str, Any]],
        runs: Mapping[str, FederatedRun],
    ) -> None:
        """Draw samples of each method beside the references, and quality by epsilon and bytes.

        A method at several epsilons is a curve; a row without a metric has no point.
        """
        for metric, label, scale in (
            ("frechet_distance", "Fréchet distance", "log"),
            ("downstream_accuracy", "downstream accuracy", "linear"),
        ):
            for key, x_label, word in (
                ("epsilon_replace_one", "epsilon (replace-one) of the worst user", "epsilon"),
                ("user_kilobytes", "kB of a user, all rounds, both ways", "bytes"),
            ):
                curves: dict[str, tuple[list[float], list[float]]] = {}
                for row in rows:
                    if row.get(metric) and row.get(key):
                        family, _, _ = row["method"].partition(", epsilon")
                        xs, ys = curves.setdefault(family, ([], []))
                        xs.append(row[key])
                        ys.append(row[metric])
                prior = next((row.get(metric) for row in rows if row["name"] == "prior"), None)
                level = ("the prior alone", prior) if prior else None
                path = self.folder / f"{metric.replace('_', '-')}-against-{word}.png"
                save_curves(path, curves, x_label, label, scale, level)
        folders = {rows_of(self.classes)[name].title: run.folder for name, run in runs.items()}
        evaluation, names = references.evaluation(), emnist_class_set(self.classes).names
        drawn = {
            title: drawn_for_picture(sampler, len(names))
            for title, sampler in evaluation.references().items()
        }
        save_side_by_side(drawn | drawn_samples(folders), self.folder / "samples.png", names)


@dataclass(frozen=True, kw_only=True)
class References:
    """A cell: metrics of the prior alone and of real images of clients."""

    comparison: Path
    settings: Mapping[str, Value]
    name: str = "references"

    @property
    def finished(self) -> bool:
        """Whether they were measured under these settings."""
        return ResultsFolder(self.comparison).finished(self.name, self.settings)

    def run(self) -> None:
        """Measure them as a run does."""
        torch.set_num_threads(1)
        measured = self.evaluation().reference_metrics()
        kept = {"metrics": measured, "settings": dict(self.settings)}
        ResultsFolder(self.comparison).keep(self.name, kept)

    def evaluation(self) -> Evaluation:
        """Return what measures them."""
        config = Config.from_table(dict(self.settings))
        return Evaluation(config, open_source(config.shared), simulated=True)

    def rows(self) -> list[dict[str, Any]]:
        """Return both rows, none before they are measured."""
        if not self.finished:
            return []
        found = ResultsFolder(self.comparison).read(self.name)["metrics"]
        titles = (("prior", PRIOR, "public"), ("real", CLIENTS, "none: not private"))
        return [
            {"name": name, "method": title, "trust_model": trust, "seeds": 1, **found[title]}
            for name, title, trust in titles
            if title in found
        ]


@dataclass(frozen=True, kw_only=True)
class BestContrast:
    """A cell: metrics of a finished run's samples at their best contrast.

    It is the contrast at which they are as grey as drawn characters (``greyness``). No user's image
    and no held-out image has a part in those, so it costs no privacy and nothing is tuned on what
    judges. They have the greys of the writers' scans and other letters, so that a distance between
    images would choose by the letters: it hardly depends on the contrast.
    """

    comparison: Path
    method: str
    trained: FederatedRun

    @property
    def name(self) -> str:
        """Name of the cell's file."""
        return f"contrast-{self.method}"

    @property
    def finished(self) -> bool:
        """Whether it was found for these settings of the run."""
        return ResultsFolder(self.comparison).finished(self.name, self.trained.settings)

    def run(self) -> None:
        """Choose the contrast, and measure samples at it as the run's own were measured."""
        torch.set_num_threads(1)
        trained = load_generator(self.trained.folder)
        shared = trained.config.shared
        drawn = open_source(shared.model_copy(update={"dataset": "drawn"})).held_out()
        images = torch.from_numpy(drawn.images)
        labels = proportional_labels(torch.from_numpy(drawn.labels), CONTRAST_SAMPLES)
        samples = draw_samples(trained.sampler, labels, "contrast", 0)

        wanted = greyness(images)

        def difference(contrast: float) -> float:
            return abs(greyness(with_contrast(samples, contrast)) - wanted)

        best = float(min(CONTRASTS, key=difference))
        judge = held_out_judge(open_source(shared))

        def sampler(labels_B: Tensor, seed: int) -> Tensor:
            return with_contrast(trained.sampler(labels_B, seed), best)

        metrics = judge.report(sampler, shared.evaluation_samples).to_dict()
        measured = {"contrast": best, **metrics, "settings": dict(self.trained.settings)}
        ResultsFolder(self.comparison).keep(self.name, measured)

    def read(self) -> dict[str, Any]:
        """Return the contrast and the metrics at it."""
        return ResultsFolder(self.comparison).read(self.name)


def greyness(images_NCHW: Tensor) -> float:
    """Return how much of the ink is grey: the mean of 4 x (1 - x) over that of x, in [0, 4].

    0 where each pixel is paper (0) or ink (1), more where strokes are blurred; how many and how
    wide they are hardly matters. 0 without ink.
    """
    ink = images_NCHW.mean()
    return float((4 * images_NCHW * (1 - images_NCHW)).mean() / ink) if ink > 0 else 0.0


def participation_flops(config: Config, num_classes: int) -> int:
    """Return the floating point operations of one participation, products of matrices alone.

    It is counted on blank images, since pixels do not matter, and from no warm start.
    """
    names = emnist_class_set("digits" if num_classes == 10 else "all").names
    spec = DataSpec(IMAGE_SHAPE, num_classes, names)
    own = config.own.model_copy(update={"warm_start_steps": 0})
    with FlopCounterMode(display=False) as counter:
        counter.mod_tracker.__exit__()  # its hooks refuse torch.autograd.grad; the total needs none
        trial_update(Config(config.shared, config.algorithm, own), spec, counter.flop_counts.clear)
    return int(counter.get_total_flops())


@cache  # a server with its prior takes seconds to build
def _flops_of_run(folder: Path, num_classes: int) -> int:
    return participation_flops(Config.from_table(config_of_run(folder)), num_classes)


def _row(name: str, described: FederatedRow, cells: list[FederatedRun]) -> dict[str, Any]:
    """Return the row of a method, over the seeds that are finished."""
    runs = [cell.summary() for cell in cells]
    first = runs[0]
    privacy = [run["privacy"] for run in runs]
    delta, mu = privacy[0]["delta"], max(p["mu"] for p in privacy)  # mu of replace-one
    replies = max(p["participations_max"] for p in privacy)
    user = max(most_of_a_client(run["bytes"]["by_client"]) for run in runs)
    secure = privacy[0]["trust_model"] == "secure-aggregation"
    by_protocol = first["rounds"] * bytes_beside_payload(first["cohort_size"]) if secure else 0
    flops = _flops_of_run(cells[0].folder, first["classes"])
    lines = [line for cell in cells for line in read_rounds(cell.folder)]
    waited = sum(line["waited_seconds"] for line in lines) / sum(line["received"] for line in lines)
    row = {
        "name": name,
        "method": described.title,
        "seeds": len(runs),
        **spreads(COLUMNS, runs),
        "published": PUBLISHED_TABLE4.get(name, {}),
        "trust_model": privacy[0]["trust_model"],
        "mu": mu,
        "delta": delta,
        "epsilon_replace_one": gaussian_epsilon(mu, delta),
        "epsilon_zero_out": gaussian_epsilon(mu / 2, delta),
        "participations_max": replies,
        "noise_stddev": privacy[0]["noise_stddev"],
        "uplink_kilobytes": first["bytes"]["uplink_per_reply"] / 1e3,
        "downlink_kilobytes": first["bytes"]["downlink_per_request"] / 1e3,
        "user_kilobytes": user / 1e3,
        "protocol_kilobytes": (user + by_protocol) / 1e3,
        "rounds": first["rounds"],
        "clients": first["clients"],
        "device_seconds": waited * replies,
        "client_teraflops": flops * int(first["replies"]["received"]) / 1e12,
        "training_seconds": mean(run["seconds"] for run in runs),
        "judge_note": first["metrics"].get("judge_note", "none"),
    }
    if name.startswith("fedavg-gan"):
        row["published_kilobytes"] = sum(published_bytes()) * replies / 1e3
    distances = [run["metrics"].get("frechet_distance") for run in runs]
    if None not in distances:
        row["frechet_distances"] = distances
    return row


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """Return the sentences below the table, with the ratios that the paper prints."""
    ran = [row for row in rows if "mu" in row]
    if not ran:
        return []
    notes = [
        f"{ran[0]['clients']} writers, a client each; every "
        "epsilon is that of the user with most replies, by the clients' own ledgers",
        "local: nobody but the device is trusted; secure aggregation: in its ideal form, of 65 % "
        "honest devices; central: the server is trusted to add the noise, and against the server "
        "itself there is no protection at all",
        "kB: payload; with the protocol: the messages of secure aggregation, by formula; at the "
        "published size: of FedAvg-GAN's networks as published",
        "device s: of one core, bound, noise, ledger and encoding included, all rounds of a user",
        "client TFLOP: products of matrices in the critics' training and, under FedAvg-GAN, "
        "in the samples that a client draws itself; all participations together",
        "as published: all 62 classes, Inception features, the paper's own accounting; not "
        "to be divided by what was measured here",
        f"metrics: {ran[0]['judge_note']}",
    ]
    by_seed = [
        f"{row['method']} {', '.join(f'{found:.2f}' for found in row['frechet_distances'])}"
        for row in ran
        if len(row.get("frechet_distances", ())) > 1
    ]
    if by_seed:
        notes.append(f"Fréchet distance by seed: {'; '.join(by_seed)}")
    by_name = {row["name"]: row for row in rows}
    for ours, theirs in RIVALS:
        if ours in by_name and theirs in by_name:
            notes.append(_ratios(by_name[ours], by_name[theirs]))
    return notes


def _ratios(ours: Row, theirs: Row) -> str:
    """Return ours over theirs, and the paper's own ratio beside each."""
    parts = []
    if ours.get("frechet_distances") and theirs.get("frechet_distances"):
        first, second = ours["frechet_distances"], theirs["frechet_distances"]
        parts.append(
            f"Fréchet distance, medians over seeds, {median(first):.2f} / {median(second):.2f} = "
            f"{median(first) / median(second):.2f}, between {min(first) / max(second):.2f} and "
            f"{max(first) / min(second):.2f} (the paper: 0.28)"
        )
    bytes_ratio = theirs["user_kilobytes"] / ours["user_kilobytes"]
    published = theirs["published_kilobytes"] / ours["user_kilobytes"]
    parts.append(
        f"bytes of a user, payload, 1/{bytes_ratio:.3g}, at the published size 1/{published:.3g} "
        "(the paper, of a participation: 1/263)"
    )
    epsilons = theirs["epsilon_replace_one"] / ours["epsilon_replace_one"]
    parts.append(f"epsilon, replace-one, 1/{epsilons:.3g} (the paper, not tight: 1/16,700)")
    pair = " over ".join(f"{row['method']} ({row['trust_model']})" for row in (ours, theirs))
    return f"{pair}: {'; '.join(parts)}"
