"""What each part of the method is worth: ``fed-gswgan compare ablation``.

One thing at a time is changed from the settings of ``fed-emnist-digits-secure.toml``, at two
epsilons; and the method, the method without its prior, and the algorithms that it is compared with
run along the whole axis of epsilon. Everything else is the same: writers, noise, prior, features,
steps of the fit, judge.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from fed_gswgan.algorithms import gs_wgan
from fed_gswgan.algorithms.base import ClientView, Mean, Query, ReleaseShape, Request, Step, Update
from fed_gswgan.algorithms.solved import SolvedAnswers, SolvedQuestions
from fed_gswgan.critics.cramer import LEAST_DEVIATION, LONGEST, Field
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import Rule
from fed_gswgan.reporting.pictures import drawn_samples, save_curves, save_side_by_side
from fed_gswgan.settings import Value, read_toml
from fed_gswgan.validation import at_least, one_of
from simulations.tables.cells import FederatedRun, run_cells
from simulations.tables.results import Column, ResultsFolder, write_tables
from simulations.tables.table4_rows import CONFIGS, NO_PRIOR

METRICS = (
    "frechet_distance", "label_agreement", "downstream_accuracy", "within_class_variance",
)  # fmt: skip
EPSILONS = (1.0, 10.0)  # of every row
AXIS = (0.2, 0.5, 2.0, 5.0, 1e6)  # further ones, of ``CURVES``; the last is hardly any noise
SECURE = CONFIGS / "fed-emnist-digits-secure.toml"
DRAWN: Mapping[str, Value] = {"dataset": "drawn", "min-images-per-writer": 1, "cohort-size": 1172}

PUBLISHED = CONFIGS / "fed-emnist-digits.toml"
# What GS-WGAN was before: critics trained on the 411 writers who have enough images for it.
TRAINED: Mapping[str, Value] = {
    **{k: v for k, v in read_toml(PUBLISHED).items() if k != "dataset"},
    "noise-stddev": 0.0,
    "delta": 1e-5,
    "prior": "none",
}

ROWS: Mapping[str, Mapping[str, Value]] = {
    "default": {},
    "no prior": NO_PRIOR,
    "mean embedding": {"algorithm": "mean-embedding"},
    "mean embedding without prior": {"algorithm": "mean-embedding", **NO_PRIOR},
    "private evolution": {"algorithm": "private-evolution", "rounds": 1},
    "no tilt": {"algorithm": f"{__name__}:WithoutTilt"},
    # The bound at which a vector of clipped directions did best in a prototype, 0.3 a row.
    "no scale": {"algorithm": f"{__name__}:WithoutScale", "clipping-bound": 0.3 * 40**0.5},
    "features dct": {"features": "dct"},
    "features random": {"features": "random"},
    "no prior and dct": {"features": "dct", **NO_PRIOR},
    "no prior and random": {"features": "random", **NO_PRIOR},
    "2 points": {"points": 2},
    "1 release": {"rounds": 1},
    "6 releases": {"rounds": 6},
    "trained mlp of 411 writers": TRAINED,
}
CURVES = ("default", "no prior", "mean embedding", "private evolution")

COLUMNS: tuple[Column, ...] = (
    ("what", "what", None),
    ("epsilon", "epsilon", None),
    ("Fréchet", "frechet_distance", 2),
    ("label agreement", "label_agreement", 3),
    ("downstream acc.", "downstream_accuracy", 3),
    ("within-class variance", "within_class_variance", 4),
    ("numbers a release", "numbers", None),
    ("releases", "rounds", None),
    ("kB of a user", "kilobytes", 1),
    ("seeds", "seeds", None),
    ("s to train", "seconds", 0),
)


class UniformPool(Adaptation):
    """Leaves the pool's weights as they are."""

    def tilt(self, found: Rule) -> None:
        """Do nothing."""


class WithoutTilt:
    """GS-WGAN whose server weights no image of the pool."""

    Settings, Client = gs_wgan.Settings, SolvedAnswers
    keeps_state, resolved = staticmethod(gs_wgan.keeps_state), staticmethod(gs_wgan.resolved)

    Server = staticmethod(lambda *given: SolvedQuestions(UniformPool(*given)))


class RowsAlone(SolvedAnswers):
    """Answers without numbers of scale; the guard clips the rows."""

    def release(self, server_round: int) -> ReleaseShape:
        """Return a row a point."""
        return ReleaseShape(self.classes * self.points, self.size, bounded="message")

    def update(self, request: Request, client: ClientView) -> Update:
        """Return the rows at their own length."""
        return Update(super().update(request, client).rows_RN / LONGEST)


class MeanIsField(SolvedQuestions):
    """Takes the clients' mean for the field."""

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Keep the public half and the mean rows, whatever the clients were scaled by."""
        points_LPD, public_LPE, latents_LPZ = query.kept
        rows_LPE = torch.from_numpy(mean.update_RN).reshape(public_LPE.shape)
        deviation_L = torch.full((len(points_LPD),), max(mean.noise_stddev, LEAST_DEVIATION))
        field = Field(points_LPD.float(), (public_LPE + rows_LPE).float(), deviation_L)
        return Step(self.adaptation.learn(server_round, field, latents_LPZ))


class WithoutScale:
    """GS-WGAN whose releases do not carry their scale."""

    Settings, Client = gs_wgan.Settings, RowsAlone
    keeps_state, resolved = staticmethod(gs_wgan.keeps_state), staticmethod(gs_wgan.resolved)

    Server = staticmethod(lambda *given: MeanIsField(Adaptation(*given)))


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Rows of the ablation, and the folder that keeps their runs.

    ``rows`` are keys of ``ROWS``, each at ``epsilons`` (those of ``CURVES`` along ``AXIS`` too if
    ``axis``), for seeds 1 to ``seeds``. ``dataset`` is fed-emnist, or drawn, where settings come
    from.
    """

    rows: tuple[str, ...]
    epsilons: tuple[float, ...]
    axis: bool
    seeds: int
    dataset: str
    workers: int
    folder: Path
    data_dir: str = ""

    def __post_init__(self) -> None:
        for name in self.rows:
            one_of(ROWS, rows=name)
        one_of(("fed-emnist", "drawn"), dataset=self.dataset)
        at_least(1, seeds=self.seeds)
        at_least(1, workers=self.workers)

    def run(self, console: Console) -> dict[str, Any]:
        """Run what is not finished, write the tables after each run, and return the rows.

        Raises:
            ValueError: the folder holds another comparison, or runs of other settings.
            RuntimeError: a run failed or was interrupted.
        """
        ResultsFolder(self.folder).open({"table": "ablation", "dataset": self.dataset})
        runs = self.runs()
        # First seeds first.
        cells = [of[seed] for seed in range(self.seeds) for of in runs.values()]
        run_cells(cells, self.workers, console, lambda: self._write(runs))
        found = self._write(runs)
        places = {
            f"{name}, epsilon {epsilon:g}": of[0].folder
            for (name, epsilon), of in runs.items()
            if epsilon in self.epsilons
        }
        self._save_pictures(found["rows"], places)
        return found

    def runs(self) -> dict[tuple[str, float], list[FederatedRun]]:
        """Return the runs of each row, a seed each."""
        return {
            (name, epsilon): [
                FederatedRun(
                    name=f"{name.replace(' ', '-')}-{epsilon:g}-{seed}",
                    settings=self.settings(name, epsilon, seed),
                    comparison=self.folder,
                )
                for seed in range(1, self.seeds + 1)
            ]
            for name in self.rows
            for epsilon in sorted({*self.epsilons, *(AXIS if self.axis and name in CURVES else ())})
        }

    def _write(self, runs: Mapping[tuple[str, float], list[FederatedRun]]) -> dict[str, Any]:
        """Write the table of the finished runs, and return the rows."""
        finished = {key: [run for run in of if run.finished] for key, of in runs.items()}
        summaries = {key: [run.summary() for run in of] for key, of in finished.items() if of}
        rows = [_row(*key, of) for key, of in summaries.items()]
        found = {
            "table": "ablation",
            "dataset": self.dataset,
            "rows": rows,
            "notes": _notes(next(iter(summaries.values()))[0]),
        }
        write_tables(found, self.folder, COLUMNS, f"ablation, {self.dataset}")
        return found

    def settings(self, name: str, epsilon: float, seed: int) -> dict[str, Value]:
        """Return the settings of a row's run."""
        settings: dict[str, Value] = read_toml(SECURE)
        settings |= {"epsilon": epsilon, "seed": seed}
        if self.dataset == "drawn":
            settings |= dict(DRAWN)
        if self.data_dir:
            settings["data-dir"] = self.data_dir
        settings |= dict(ROWS[name])
        if ":" not in str(settings.get("algorithm", "")):
            return settings
        keys = set(gs_wgan.Settings.keys()) & settings.keys()
        own = [f"{key} = {json.dumps(settings.pop(key))}" for key in sorted(keys)]
        return settings | {"algorithm-settings": "\n".join(own)}

    def _save_pictures(self, rows: list[dict[str, Any]], places: Mapping[str, Path]) -> None:
        """Draw samples of every row side by side, and quality against epsilon."""
        save_side_by_side(drawn_samples(places), self.folder / "samples.png")
        for metric in ("frechet_distance", "downstream_accuracy"):
            curves = {}
            for name in CURVES:
                drawn = sorted((r["epsilon"], r[metric]) for r in rows if r["what"] == name)
                if drawn:
                    curves[name] = [x for x, _ in drawn], [y for _, y in drawn]
            path = self.folder / f"{metric.replace('_', '-')}-against-epsilon.png"
            save_curves(path, curves, "epsilon of every user", metric.replace("_", " "))


def _row(name: str, epsilon: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over seeds."""
    first = runs[0]
    sent = first["bytes"]["uplink_per_reply"] + first["bytes"]["downlink_per_request"]
    return {
        "what": name,
        "epsilon": epsilon,
        **{metric: median(run["metrics"][metric] for run in runs) for metric in METRICS},
        "numbers": first["privacy"]["numbers_per_release"],
        "rounds": first["rounds"],
        "kilobytes": sent * first["rounds"] / 1e3,
        "seeds": len(runs),
        "seconds": median(run["seconds"] for run in runs),
    }


def _notes(run: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table."""
    privacy, metrics = run["privacy"], run["metrics"]
    return [
        f"{run['clients']} clients, all asked in each round; secure aggregation in its ideal form, "
        f"delta {privacy['delta']:g}, {privacy['neighboring_relation']}; medians over seeds",
        f"within-class variance of real images: {metrics['real_within_class_variance']:.4f}",
        f"metrics: {metrics.get('judge_note', 'none')}",
    ]
