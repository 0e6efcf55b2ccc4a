"""The paper's fourth table: federated GS-WGAN beside FedAvg-GAN, on real writers."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fed_gswgan.comparison.curves import save_curves
from fed_gswgan.comparison.published import PUBLISHED_TABLE4
from fed_gswgan.comparison.published_sizes import published_bytes
from fed_gswgan.comparison.results_folder import ResultsFolder
from fed_gswgan.comparison.rows import Spread, spread
from fed_gswgan.comparison.sample_pictures import drawn_samples, save_side_by_side
from fed_gswgan.comparison.tables import write_tables
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.doctor import trial_update
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.reporting.run_folder import SUMMARY, config_of_run
from fed_gswgan.settings import Value
from fed_gswgan.validation import at_least, one_of
from simulations.federated_presets import METHODS, SHARED, FederatedMethod
from simulations.federated_run import run_federation

COLUMNS: tuple[tuple[str, str, int | None], ...] = (
    ("method", "method", None),
    ("trust", "trust_model", None),
    ("IS", "inception_score", 2),
    ("Fréchet", "frechet_distance", 1),
    ("label agreement", "label_agreement", 3),
    ("downstream acc.", "downstream_accuracy", 3),
    ("epsilon, replace-one", "epsilon_replace_one", 1),
    ("epsilon, zero-out", "epsilon_zero_out", 1),
    ("replies of a user, at most", "participations_max", None),
    ("kB up", "uplink_kilobytes", 1),
    ("kB down", "downlink_kilobytes", 1),
    ("client TFLOP", "client_teraflops", 2),
    ("seeds", "seeds", None),
    ("s to train", "seconds", 0),
)
MEASURED = ("inception_score", "frechet_distance", "label_agreement", "downstream_accuracy")


@dataclass(frozen=True, kw_only=True)
class Table4:
    """What is compared, and where it is kept.

    Attributes:
        dataset: ``fed-emnist``.
        preset: ``small`` or ``full``.
        methods: names of the preset's rows.
        seeds: runs of each.
        runtime: ``ray`` or ``in-process``.
        folder: of the comparison.
        data_dir: where the data lies; empty: FED_GSWGAN_DATA says.
    """

    dataset: str
    preset: str
    methods: tuple[str, ...]
    seeds: int
    runtime: str
    folder: Path
    data_dir: str = ""

    def __post_init__(self) -> None:
        one_of(("fed-emnist",), dataset=self.dataset)
        one_of(METHODS, preset=self.preset)
        at_least(1, seeds=self.seeds)
        one_of(("ray", "in-process"), runtime=self.runtime)
        for name in self.methods:
            one_of(METHODS[self.preset], methods=name)

    def run(self) -> dict[str, Any]:
        """Run what is not finished, write the tables anew after each run, and return the rows."""
        results = ResultsFolder(self.folder)
        results.open({"table": 4, "dataset": self.dataset, "preset": self.preset})
        summaries: dict[str, list[dict[str, Any]]] = {}
        found: dict[str, Any] = {}
        for seed in range(self.seeds):
            for name in self.methods:
                settings = self._settings(name, seed, summaries)
                folder = self.folder / "runs" / f"{name}-{seed}"
                summary = run_federation(settings, folder, self.runtime)
                summaries.setdefault(name, []).append(summary)
                found = self._write(summaries)
        return found

    def _settings(
        self, name: str, seed: int, summaries: Mapping[str, list[dict[str, Any]]]
    ) -> dict[str, Value]:
        method = METHODS[self.preset][name]
        settings = {**SHARED[self.preset], **method.settings, "seed": seed}
        if self.data_dir:
            settings["data-dir"] = self.data_dir
        if method.matched_to:
            if method.matched_to not in summaries:
                raise ValueError(
                    f"methods must name {method.matched_to} before {name}, which is matched to it"
                )
            reference = summaries[method.matched_to][seed]["privacy"]
            settings["noise-stddev"] = self._matched_noise(method, settings, reference)
        return settings

    def _matched_noise(
        self, method: FederatedMethod, settings: Mapping[str, Value], reference: Mapping[str, Any]
    ) -> float:
        """Return the noise at which as many replies as the worst user will give cost the same mu.

        The cohorts follow from the seed, so the same run without this noise tells that number.
        """
        own = self.folder / "runs" / f"fedavg-gan-{settings['seed']}" / SUMMARY
        if not own.exists():
            raise ValueError("methods must name fedavg-gan before fedavg-gan-matched")
        replies = json.loads(own.read_text())["privacy"]["participations_max"]
        return float(2 * math.sqrt(replies) / reference["mu"])

    def _write(self, summaries: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        rows = [self._row(name, runs) for name, runs in summaries.items()]
        found = {
            "table": 4,
            "dataset": self.dataset,
            "preset": self.preset,
            "rows": rows,
            "notes": self._notes(summaries, {row["name"]: row for row in rows}),
        }
        write_tables(found, self.folder, COLUMNS, f"{self.dataset}, {self.preset}")
        folders = {
            METHODS[self.preset][name].title: self.folder / "runs" / f"{name}-0"
            for name in summaries
        }
        save_curves(folders, rows, self.folder)
        save_side_by_side(drawn_samples(folders), self.folder / "samples.png")
        return found

    def _row(self, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
        method = METHODS[self.preset][name]
        row: dict[str, Any] = {"name": name, "method": method.title, "seeds": len(runs)}
        for key in MEASURED:
            values = [run["metrics"][key] for run in runs]
            if None not in values:
                row |= _with_deviation(key, spread(values))
        privacy = [run["privacy"] for run in runs]
        delta = privacy[0]["delta"]
        mu = max(p["mu"] for p in privacy)  # of replace-one, which doubles zero-out's
        row |= {
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
            "rounds": runs[0]["rounds"],
            "clients": runs[0]["clients"],
            "client_teraflops": self._client_teraflops(name, runs[0]),
            "seconds": spread([run["seconds"] for run in runs]).mean,
        }
        return row

    def _client_teraflops(self, name: str, run: Mapping[str, Any]) -> float:
        """Return what all participations of a run took together."""
        settings = config_of_run(self.folder / "runs" / f"{name}-0")
        flops = participation_flops(Config.from_table(settings), run["classes"])
        return flops * int(run["replies"]["received"]) / 1e12

    def _notes(
        self, summaries: Mapping[str, list[dict[str, Any]]], rows: Mapping[str, Any]
    ) -> list[str]:
        """Return what has to be known of the figures, and the ratios that the paper prints."""
        some = next(iter(summaries.values()))[0]
        notes = [
            f"{some['clients']} writers, a client each; delta {some['privacy']['delta']:g}; every "
            "epsilon is that of the user with most replies, by the clients' own ledgers",
            "local: nobody but the device is trusted; central: the server is trusted to add the "
            "noise, and against the server itself FedAvg-GAN has no protection at all",
            "client TFLOP: products of matrices in the critics' training and, under FedAvg-GAN, "
            "in the samples that a client draws itself; all participations together",
            "as published: all 62 classes, Inception features, the paper's own accounting; not "
            "to be divided by what was measured here",
            f"metrics: {some['metrics'].get('judge_note', 'none')}",
        ]
        published = published_bytes()
        notes.append(
            f"FedAvg-GAN at its published size: {published.downlink / 1e6:.1f} MB down and "
            f"{published.uplink / 1e6:.1f} MB up a participation"
        )
        ours = rows.get("gs-wgan")
        for name, row in rows.items():
            if ours and name != "gs-wgan":
                notes += _ratios(ours, row, published.downlink + published.uplink)
        return notes


def participation_flops(config: Config, num_classes: int) -> int:
    """Return the floating point operations of one participation, products of matrices alone.

    One participation is run on a blank image of each class: how many operations it takes does not
    depend on what is in them. A warm start is not in it.
    """
    spec = DataSpec((1, 28, 28), num_classes)  # of Fed-EMNIST
    own = config.own.model_copy(update={"warm_start_steps": 0})
    flops = _Flops()
    with flops:
        trial_update(Config(config.shared, config.algorithm, own), spec, flops.reset)
    return flops.total


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up operations; PyTorch's ``FlopCounterMode`` fails under ``autograd.grad`` of inputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def reset(self) -> None:
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=found))
        return found


def _ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any], published: int) -> list[str]:
    """Return ours over theirs, and the paper's own ratio beside each."""
    sent = 1e3 * (ours["uplink_kilobytes"] + ours["downlink_kilobytes"])
    slim = 1e3 * (theirs["uplink_kilobytes"] + theirs["downlink_kilobytes"])
    pair = f"{_with_trust(ours)} over {_with_trust(theirs)}"
    lines = [
        f"bytes a participation, both ways, {pair}: 1/{published / sent:.0f} at the published size "
        f"of FedAvg-GAN's networks, {sent / slim:.3f} at the size run here; the paper's ratio: "
        "1/263",
        *(
            f"epsilon, {relation.replace('_', '-')}, {pair}: "
            f"{ours[f'epsilon_{relation}'] / theirs[f'epsilon_{relation}']:.3g}; the paper's "
            "ratio, not tight: 1/16,700"
            for relation in ("replace_one", "zero_out")
        ),
    ]
    if "frechet_distance" in ours and "frechet_distance" in theirs:
        ours_frechet, theirs_frechet = ours["frechet_distance"], theirs["frechet_distance"]
        lines.append(
            f"Fréchet distance, {pair}: {ours_frechet:.2f} / {theirs_frechet:.2f} = "
            f"{ours_frechet / theirs_frechet:.2f}; the paper's ratio: 0.28"
        )
    return lines


def _with_trust(row: Mapping[str, Any]) -> str:
    return f"{row['method']} ({row['trust_model']} trust)"


def _with_deviation(key: str, found: Spread) -> dict[str, float | None]:
    return {key: found.mean, f"{key}_deviation": found.deviation}
