"""Record of what every step of five rounds computes, to compare a changed program with.

``python -m benchmarks.record_numbers DIR`` runs digits.toml and its FedAvg-GAN twin for five rounds
at seed 0 in this process and writes, for each algorithm, ``DIR/ALGORITHM.npz``: the requests, each
client's bounded update before its noise, the mean update, and the generator's weights after each
round. ``DIR/numbers.json`` holds the same in short form, together with ledger events and epsilon:
for each array its shape, its L2 norm, and its scalar products with four fixed sign vectors.
``benchmarks/recorded_numbers.json`` is that file as the program wrote it at the commit it names.

``--compare OTHER`` prints the largest differences from the record in the folder OTHER. Differences
in a mean's last digits grow from round to round, since Adam divides by small numbers: ``--follow
OTHER`` gives the server the means of OTHER, after its own were recorded. ``--fine-grid`` makes the
grids of releases 2^14 and 2^8 times finer, to compare with a program whose noise was on no grid.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import fed_gswgan.device.guard as guard
import fed_gswgan.privacy.mechanism as mechanism
import fed_gswgan.privacy.noise as noise
import server.strategy as strategy
from fed_gswgan.models.registry import to_state_vector
from fed_gswgan.privacy.ledger import Ledger
from server.run_recorder import RunRecorder
from simulations.run import simulate

PROJECTIONS = 4
OWN_SETTINGS = {
    "gs-wgan": [],
    "fedavg-gan": ["algorithm=fedavg-gan", "trust=central"],
}


def record(algorithm: str, folder: Path, follow: Path | None) -> dict[str, Any]:
    """Run five rounds, write the arrays, and return their short form."""
    followed = np.load(follow / f"{algorithm}.npz") if follow else None
    arrays: dict[str, np.ndarray] = {}
    place: dict[str, Any] = {"clients": []}
    reserve, privatize = Ledger.reserve, mechanism.privatize
    mean_of, on_round, encode = strategy.mean_of, RunRecorder.on_round, strategy.Request.encode

    def reserved(ledger: Ledger, clients: Any, key: Any, *rest: Any) -> Any:
        place["round"] = key.server_round
        found = reserve(ledger, clients, key, *rest)
        place["clients"] = list(found.todo)
        return found

    def privatized(rows: np.ndarray, extra: np.ndarray, event: Any, source: Any) -> np.ndarray:
        name = f"{place['round']}/update/{place['clients'].pop(0)}"
        arrays[name] = mechanism.bound(rows, extra, event)
        return privatize(rows, extra, event, source)

    def averaged(*arguments: Any) -> Any:
        found = mean_of(*arguments)
        name = f"{place['round']}/mean"
        arrays[name] = found.update_RN
        if followed is None:
            return found
        return found._replace(update_RN=followed[name].astype(float).reshape(found.update_RN.shape))

    def encoded(request: Any) -> bytes:
        for name, tensor in request.tensors.items():
            arrays[f"{request.server_round}/request/{name}"] = np.array(tensor)
        return encode(request)

    def reported(recorder: RunRecorder, report: Any) -> None:
        generator = getattr(recorder._server, "half", recorder._server).trainer.generator
        arrays[f"{report.server_round}/generator"] = to_state_vector(generator)
        on_round(recorder, report)

    run = folder / f"run-{algorithm}"
    settings = ["rounds=5", "evaluation-samples=0", "seed=0", *OWN_SETTINGS[algorithm]]
    with (
        patch.object(Ledger, "reserve", reserved),
        patch.object(guard, "privatize", privatized),
        patch.object(strategy, "mean_of", averaged),
        patch.object(strategy.Request, "encode", encoded),
        patch.object(RunRecorder, "on_round", reported),
    ):
        config = [Path("simulations/configs/digits.toml")]
        status = simulate(config, settings, str(run), runtime="in-process", workers=1)
    if status != 0:
        raise SystemExit(f"the run of {algorithm} ended with status {status}")
    np.savez(folder / f"{algorithm}.npz", **arrays)  # type: ignore[arg-type]
    return {
        "arrays": {name: _short(values) for name, values in sorted(arrays.items())},
        "ledger_events": _ledger_events(run),
        "privacy": json.loads((run / "summary.json").read_text())["privacy"],
    }


def compare(folder: Path, other: Path) -> None:
    """Print the largest difference of each kind of array, relative to its own norm."""
    for algorithm in OWN_SETTINGS:
        mine, theirs = (np.load(place / f"{algorithm}.npz") for place in (folder, other))
        worst: dict[str, float] = {}
        for name in sorted(set(mine.files) | set(theirs.files)):
            kind = name.split("/")[1]
            if name not in mine.files or name not in theirs.files:
                print(f"{algorithm}: {name} is in one record only")
                continue
            first, second = (found[name].astype(np.float64).ravel() for found in (mine, theirs))
            apart = float(np.abs(first - second).max())
            if kind != "generator":
                apart = float(np.linalg.norm(first - second) / max(np.linalg.norm(second), 1e-300))
            worst[kind] = max(worst.get(kind, 0.0), apart)
        print(algorithm, {kind: f"{value:.2e}" for kind, value in worst.items()})


def _short(values: np.ndarray) -> dict[str, Any]:
    flat = values.astype(np.float64).ravel()
    signs = np.random.Generator(np.random.Philox(key=0)).choice([-1.0, 1.0], (PROJECTIONS, 1))
    rows = np.random.Generator(np.random.Philox(key=1)).choice([-1.0, 1.0], flat.size)
    turned = [np.roll(rows, 7919 * k) for k in range(PROJECTIONS)]
    products = (signs[:, 0] * (np.stack(turned) @ flat)).tolist()
    return {
        "shape": list(values.shape),
        "norm": float(np.linalg.norm(flat)),
        "products": products,
    }


def _ledger_events(run: Path) -> list[dict[str, Any]]:
    """Return user, round and cost of every reservation, in a fixed order."""
    events = []
    for shard in sorted((run / "clients").glob("shard-*")):
        with Ledger(shard) as ledger:
            for line in ledger.lines():
                event = {
                    "rows": line.event.rows,
                    "bounded": line.event.bounded,
                    "clipping_bound": line.event.clipping_bound,
                    "noise_stddev": line.event.noise_stddev,
                    "trust": line.event.trust,
                }
                events.append(
                    {"user": line.user, "server_round": line.server_round, "event": event}
                )
    return sorted(events, key=lambda e: (e["server_round"], e["user"]))


def main() -> None:
    """Record both algorithms, or compare two records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fine-grid", action="store_true")
    parser.add_argument("--follow", type=Path, metavar="OTHER")
    parser.add_argument("--compare", type=Path, metavar="OTHER")
    options = parser.parse_args()
    if options.compare:
        compare(options.folder, options.compare)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.fine_grid:
        noise.GRID_BITS, mechanism.CENTRAL_GRID_BITS = 24, 28
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = {
        "commit": commit,
        **{name: record(name, options.folder, options.follow) for name in OWN_SETTINGS},
    }
    (options.folder / "numbers.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
