"""The paper's fourth table: federated GS-WGAN beside FedAvg-GAN, on the writers of Fed-EMNIST.

The row of GS-WGAN is a file of ``simulations/configs``; FedAvg-GAN changes some of its settings. It
runs twice: with its published noise, and with the noise that gives it the epsilon of GS-WGAN.
"""

import json
import math
import sys
import tomllib
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.doctor import trial_update
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.reporting.pictures import drawn_samples, save_curves, save_side_by_side
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, changed_setting, config_of_run, read_run
from fed_gswgan.reporting.summary_table import most_of_a_client
from fed_gswgan.settings import Value
from fed_gswgan.validation import at_least, one_of
from simulations.run import RUNTIMES, simulate
from simulations.tables.published import PUBLISHED_TABLE4, published_bytes
from simulations.tables.results import Column, ResultsFolder, Row, spreads, write_tables

CONFIGS = Path(__file__).parents[1] / "configs"
DATASET = "fed-emnist"
PLACES = ("output-dir", "data-dir", "resume")  # paths and mode, which may differ on resuming

GSWGAN: Mapping[str, Path] = {
    # The digits of every writer with at least 40 of them; slim networks for all. With 62 classes,
    # 440 writers and half an hour only FedAvg-GAN reaches readable samples.
    "small": CONFIGS / "fed-emnist-digits.toml",
    # The paper's networks and number of rounds; for a GPU and a day.
    "full": CONFIGS / "paper-fed-emnist.toml",
}
_PUBLISHED_FEDAVG: Mapping[str, Value] = {
    "algorithm": "fedavg-gan",
    "cohort-size": 10,
    "batch-size": 32,
    "critic-steps": 6,
    "generator-steps": 6,
    "trust": "central",
    "clipping-bound": 0.1,
    "noise-stddev": 0.01,
}
FEDAVG: Mapping[str, Mapping[str, Value]] = {
    # As much arithmetic for the clients as GS-WGAN's: 10 TFLOP over all rounds. FedAvg-GAN's
    # clients draw their own samples, which takes most of theirs. The published learning rate of
    # the critic, 5e-4, is for the published critic; this one is tuned.
    "small": {
        **_PUBLISHED_FEDAVG,
        "rounds": 595,
        "critic-learning-rate": 2e-2,
        "ema-halflife-steps": 20.0,
    },
    "full": {
        **_PUBLISHED_FEDAVG,
        "rounds": 1000,
        "critic-learning-rate": 5e-4,
        "generator-learning-rate": 2e-3,
        "warm-start-steps": 0,
    },
}
MATCHED = "fedavg-gan-matched"
# FedAvg-GAN starts from the prior's generator and critic, whose settings these are.
WITH_PRIOR: Mapping[str, Value] = {
    "prior": "strokes", "latent-dim": 32, "critic-width": 256, "class-embedding-stddev": 0.05,
}  # fmt: skip
NO_PRIOR: Mapping[str, Value] = {"prior": "none", "rounds": 12, "fit-steps": 1200}
# The writers of the small preset, all of them asked in each round, for methods that are solved.
SECURE = CONFIGS / "fed-emnist-digits-secure.toml"
LOCAL = CONFIGS / "fed-emnist-digits-local.toml"
SAME_WRITERS: Mapping[str, Value] = {"min-images-per-writer": 40, "cohort-size": 411}
ALGORITHMS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "cramer": ("GS-WGAN, Cramér critic", {}),
    "mean-embedding": ("DP-MERF, federated", {"algorithm": "mean-embedding"}),
    "private-evolution": (
        "private evolution", {"algorithm": "private-evolution", "rounds": 1}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Solved:
    """A row of a method that is solved in closed form.

    Attributes:
        title: in the table.
        base: file of its settings.
        changes: over the file, and over the writers of the table.
    """

    title: str
    base: Path
    changes: Mapping[str, Value]


def _solved() -> dict[str, Solved]:
    """Return the rows by name: algorithm, whether local or without prior, and epsilon."""
    rows = {}
    for algorithm, (title, changes) in ALGORITHMS.items():
        for prior in ("from the prior", "no prior")[: 1 if algorithm == "private-evolution" else 2]:
            start = {} if prior == "from the prior" else NO_PRIOR
            word = "-no-prior" if start else ""
            for epsilon in (1.0, 10.0):
                rows[f"{algorithm}{word}-{epsilon:g}"] = Solved(
                    f"{title}, {prior}, epsilon {epsilon:g}",
                    SECURE,
                    {**changes, **start, "epsilon": epsilon},
                )
    title, _ = ALGORITHMS["cramer"]
    rows["cramer-local-10"] = Solved(f"{title}, from the prior, local, epsilon 10", LOCAL, {})
    return rows


SOLVED = _solved()
TITLES: Mapping[str, str] = {
    "gs-wgan": "GS-WGAN",
    "fedavg-gan": "FedAvg-GAN",
    MATCHED: "FedAvg-GAN, matched epsilon",
    "fedavg-gan-prior": "FedAvg-GAN from the prior",
    **{name: row.title for name, row in SOLVED.items()},
}
# Rows whose ratio of Fréchet distances is printed: neither with the prior, and both.
RIVALS = (
    ("gs-wgan", "fedavg-gan"),
    ("gs-wgan", MATCHED),
    ("cramer-no-prior-1", "fedavg-gan"),
    ("cramer-no-prior-10", "fedavg-gan"),
    ("cramer-1", "fedavg-gan-prior"),
    ("cramer-10", "fedavg-gan-prior"),
)
PAPERS = ("gs-wgan", "fedavg-gan", MATCHED)

COLUMNS: tuple[Column, ...] = (
    ("method", "method", None),
    ("trust", "trust_model", None),
    ("IS", "inception_score", 2),
    ("Fréchet", "frechet_distance", 2),
    ("second judge", "stroke_frechet_distance", 1),
    ("kernel", "kernel_distance", 4),
    ("label agreement", "label_agreement", 3),
    ("downstream acc.", "downstream_accuracy", 3),
    ("within-class variance", "within_class_variance", 4),
    ("epsilon, replace-one", "epsilon_replace_one", 1),
    ("epsilon, zero-out", "epsilon_zero_out", 1),
    ("replies of a user, at most", "participations_max", None),
    ("kB up", "uplink_kilobytes", 1),
    ("kB down", "downlink_kilobytes", 1),
    ("kB of a user, all", "user_kilobytes", 1),
    ("client TFLOP", "client_teraflops", 2),
    ("delta", "delta", None),
    ("seeds", "seeds", None),
    ("s to train", "training_seconds", 0),
)


def settings_of(method: str, preset: str) -> dict[str, Value]:
    """Return the settings of a row's runs; of a matched row, before its noise is matched.

    Raises:
        ValueError: a row that is solved, or from the prior, in the full preset.
    """
    if method not in PAPERS and preset != "small":
        raise ValueError(
            f"methods={method} must be one of {', '.join(PAPERS)} in preset={preset}: its settings "
            "are for the digits of the small preset's writers"
        )
    if row := SOLVED.get(method):
        return {**tomllib.loads(row.base.read_text()), **SAME_WRITERS, **row.changes}
    settings = tomllib.loads(GSWGAN[preset].read_text())
    if method == "gs-wgan":
        return settings
    start = WITH_PRIOR if method == "fedavg-gan-prior" else {}
    return {**settings, **FEDAVG[preset], **start}


@dataclass(frozen=True, kw_only=True)
class Table4:
    """Rows of the fourth table, and the folder that keeps them.

    ``methods`` are keys of ``TITLES``, the matched one after the two others; each runs for
    ``seeds`` seeds. An empty ``data_dir`` stands for FED_GSWGAN_DATA.
    """

    preset: str
    methods: tuple[str, ...]
    seeds: int
    runtime: str
    folder: Path
    data_dir: str = ""

    def __post_init__(self) -> None:
        one_of(GSWGAN, preset=self.preset)
        at_least(1, seeds=self.seeds)
        one_of(RUNTIMES, runtime=self.runtime)
        for place, name in enumerate(self.methods):
            one_of(TITLES, methods=name)
            settings_of(name, self.preset)
            for needed in ("gs-wgan", "fedavg-gan") if name == MATCHED else ():
                if needed not in self.methods[:place]:
                    raise ValueError(f"methods must name {needed} before {name}")

    def run(self) -> dict[str, Any]:
        """Run what is not finished, write the tables after each run, and return the rows.

        Raises:
            ValueError: the folder holds another comparison, or runs of other settings.
            RuntimeError: a run failed or was interrupted.
        """
        found = {"table": 4, "dataset": DATASET, "preset": self.preset}
        ResultsFolder(self.folder).open(found)
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in range(self.seeds):
            for name in self.methods:
                settings = {**settings_of(name, self.preset), "seed": seed}
                if self.data_dir:
                    settings["data-dir"] = self.data_dir
                if name == MATCHED:
                    # The cohorts follow from the seed: other noise, the same number of replies.
                    replies = runs["fedavg-gan"][seed]["privacy"]["participations_max"]
                    mu = runs["gs-wgan"][seed]["privacy"]["mu"]
                    settings["noise-stddev"] = 2 * math.sqrt(replies) / mu
                run = finished_run(settings, self._folder(name, seed), self.runtime)
                runs.setdefault(name, []).append(run)
                rows = [self._row(name, of_row) for name, of_row in runs.items()]
                found |= {"rows": rows, "notes": _notes(runs[self.methods[0]][0], rows)}
                write_tables(found, self.folder, COLUMNS, f"{DATASET}, {self.preset}")
                self._save_pictures(rows)
        return found

    def _folder(self, name: str, seed: int) -> Path:
        return self.folder / "runs" / f"{name}-{seed}"

    def _row(self, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
        privacy = [run["privacy"] for run in runs]
        delta = privacy[0]["delta"]
        mu = max(p["mu"] for p in privacy)  # of replace-one, which is twice that of zero-out
        config = Config.from_table(config_of_run(self._folder(name, 0)))
        flops = participation_flops(config, runs[0]["classes"])
        return {
            "name": name,
            "method": TITLES[name],
            "seeds": len(runs),
            **spreads(COLUMNS, runs),
            **_median_distance(runs),
            "published": PUBLISHED_TABLE4.get(name, {}),
            "trust_model": privacy[0]["trust_model"],
            "mu": mu,
            "delta": delta,
            "epsilon_replace_one": gaussian_epsilon(mu, delta),
            "epsilon_zero_out": gaussian_epsilon(mu / 2, delta),
            "participations_max": max(p["participations_max"] for p in privacy),
            "noise_stddev": privacy[0]["noise_stddev"],
            "uplink_kilobytes": runs[0]["bytes"]["uplink_per_reply"] / 1e3,
            "downlink_kilobytes": runs[0]["bytes"]["downlink_per_request"] / 1e3,
            "user_kilobytes": max(most_of_a_client(run["bytes"]["by_client"]) for run in runs)
            / 1e3,
            "rounds": runs[0]["rounds"],
            "clients": runs[0]["clients"],
            "client_teraflops": flops * int(runs[0]["replies"]["received"]) / 1e12,
            "training_seconds": mean(run["seconds"] for run in runs),
        }

    def _save_pictures(self, rows: list[dict[str, Any]]) -> None:
        """Draw samples of each method, quality against epsilon and bytes, epsilon against rounds.

        A row without a Fréchet distance has no point.
        """
        against_epsilon, against_bytes, epsilons, folders = {}, {}, {}, {}
        for row in rows:
            title = row["method"]
            folders[title] = self._folder(row["name"], 0)
            if distance := row.get("frechet_distance"):
                against_epsilon[title] = [row["epsilon_replace_one"]], [distance]
                sent = row["uplink_kilobytes"] + row["downlink_kilobytes"]
                against_bytes[title] = [sent], [distance]
            rounds = read_rounds(folders[title])
            bounds = [line["epsilon_server_bound"] for line in rounds]
            epsilons[title] = [line["server_round"] for line in rounds], bounds
        worst, quality = "epsilon (replace-one) of the worst user", "Fréchet distance"
        sent_label, by_server = "kB a participation, both ways", f"{worst}, by the server's count"
        for name, curves, x_label, y_label in (
            ("quality-against-epsilon", against_epsilon, worst, quality),
            ("quality-against-bytes", against_bytes, sent_label, quality),
            ("epsilon-against-rounds", epsilons, "round", by_server),
        ):
            save_curves(self.folder / f"{name}.png", curves, x_label, y_label)
        save_side_by_side(drawn_samples(folders), self.folder / "samples.png")


def finished_run(settings: Mapping[str, Value], folder: Path, runtime: str) -> dict[str, Any]:
    """Run a simulation to its end, or resume the one in the folder, and return its summary.

    The metrics stand alone: a table has rows for what they are compared with. What ``python -m
    simulations.run`` prints goes to standard error.

    Raises:
        ValueError: the run in the folder has other settings.
        RuntimeError: the run failed or was interrupted.
    """
    settings = {**settings, "evaluation-references": False}
    started = (folder / RUN).exists()
    config = Config.from_table(settings)
    if started:
        config = config.with_noise(read_run(folder).spec)
    if started and (changed := changed_setting(config, folder, PLACES)):
        key, asked, kept = changed
        raise ValueError(
            f"{key}={asked} must be {kept}, as in the run in {folder}: name another output folder"
        )
    if not (folder / SUMMARY).exists():
        with redirect_stdout(sys.stderr):
            if started:
                status = simulate([], resume=str(folder), runtime=runtime)
            else:
                status = simulate(dict(settings), output=str(folder), runtime=runtime)
        if status != 0:
            raise RuntimeError(f"{folder}: the run ended with status {status}, as printed above")
    return dict(json.loads((folder / SUMMARY).read_text()))


def participation_flops(config: Config, num_classes: int) -> int:
    """Return the floating point operations of one participation, products of matrices alone.

    It is counted on blank images, since pixels do not matter, and from no start, warm or prior.
    """
    spec = DataSpec((1, 28, 28), num_classes)  # of Fed-EMNIST
    own = config.own.model_copy(update={"warm_start_steps": 0, "prior": "none"})
    with FlopCounterMode(display=False) as counter:
        counter.mod_tracker.__exit__()  # its hooks refuse torch.autograd.grad; the total needs none
        trial_update(Config(config.shared, config.algorithm, own), spec, counter.flop_counts.clear)
    return int(counter.get_total_flops())


def _median_distance(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median over seeds of the Fréchet distance, if every run has one."""
    found = [run["metrics"].get("frechet_distance") for run in runs]
    return {} if None in found else {"frechet_distance_median": median(found)}


def _notes(run: Row, rows: list[dict[str, Any]]) -> list[str]:
    """Return the sentences below the table, with the ratios that the paper prints."""
    published = published_bytes()
    notes = [
        f"{run['clients']} writers, a client each; every "
        "epsilon is that of the user with most replies, by the clients' own ledgers",
        "local: nobody but the device is trusted; central: the server is trusted to add the "
        "noise, and against the server itself FedAvg-GAN has no protection at all",
        "client TFLOP: products of matrices in the critics' training and, under FedAvg-GAN, "
        "in the samples that a client draws itself; all participations together",
        "as published: all 62 classes, Inception features, the paper's own accounting; not "
        "to be divided by what was measured here",
        f"metrics: {run['metrics'].get('judge_note', 'none')}",
        f"FedAvg-GAN at its published size: {published.downlink / 1e6:.1f} MB down and "
        f"{published.uplink / 1e6:.1f} MB up a participation",
    ]
    by_name = {row["name"]: row for row in rows}
    for name in PAPERS[1:]:
        if "gs-wgan" in by_name and name in by_name:
            notes += _ratios(by_name["gs-wgan"], by_name[name])
    for ours, theirs in RIVALS:
        if ours in by_name and theirs in by_name:
            notes += _distances(by_name[ours], by_name[theirs])
    return notes


def _ratios(ours: Row, theirs: Row) -> list[str]:
    """Return ours over theirs, and the paper's own ratio beside each."""
    sent, slim = (
        1e3 * (row["uplink_kilobytes"] + row["downlink_kilobytes"]) for row in (ours, theirs)
    )
    pair = _pair(ours, theirs)
    lines = [
        f"bytes a participation, both ways, {pair}: 1/{sum(published_bytes()) / sent:.0f} at the "
        f"published size of FedAvg-GAN's networks, {sent / slim:.3f} at the size run here; the "
        "paper's ratio: 1/263"
    ]
    lines += [
        f"epsilon, {relation.replace('_', '-')}, {pair}: "
        f"{ours[f'epsilon_{relation}'] / theirs[f'epsilon_{relation}']:.3g}; the paper's "
        "ratio, not tight: 1/16,700"
        for relation in ("replace_one", "zero_out")
    ]
    return lines


def _distances(ours: Row, theirs: Row) -> list[str]:
    """Return the ratio of the medians over seeds of Fréchet distances, if both rows have one."""
    first, second = (row.get("frechet_distance_median") for row in (ours, theirs))
    if first is None or second is None:
        return []
    return [
        f"Fréchet distance, median of seeds, {_pair(ours, theirs)}: {first:.2f} / {second:.2f} = "
        f"{first / second:.2f}; the paper's ratio: 0.28"
    ]


def _pair(ours: Row, theirs: Row) -> str:
    return " over ".join(f"{row['method']} ({row['trust_model']} trust)" for row in (ours, theirs))
