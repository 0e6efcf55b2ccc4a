"""Record of what every step of five rounds computes, to compare a changed program with.

``python -m benchmarks.record_numbers DIR`` runs the demo and its FedAvg-GAN twin for five rounds at
seed 0 in this process and writes, for each algorithm, ``DIR/ALGORITHM.npz``: the requests, each
client's bounded update before its noise, the mean update, and the generator's weights after each
round. ``DIR/numbers.json`` holds the same in short form, together with ledger events and epsilon:
for each array its shape, its L2 norm, and its scalar products with four fixed sign vectors.
``benchmarks/recorded_numbers.json`` is that file as the program wrote it at the commit it names.
"""

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import fed_gswgan.device.guard as guard
import fed_gswgan.device.update_guard as update_guard
import server.sample_gradient_strategy as sample_gradient_strategy
from fed_gswgan.device.private_client import PrivateClient
from fed_gswgan.models.registry import to_state_vector
from fed_gswgan.privacy.clipping import clip
from fed_gswgan.training.averaged_critic import AveragedCriticTrainer
from server.run_recorder import RunRecorder
from simulations.run import main as simulate

ROUNDS = 5
PROJECTIONS = 4
OWN_SETTINGS = {
    "gs-wgan": [],
    "fedavg-gan": ["algorithm=fedavg-gan", "clipping=message"],
}


class Recorder:
    """Arrays by name: ``round/kind`` or ``round/update/client``."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._round, self._client = 0, ""

    def keep(self, kind: str, values: Any) -> None:
        """Keep a copy of an array under the current round."""
        self.arrays[f"{self._round}/{kind}"] = np.array(values)

    def begin_release(self, release: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``PrivateClient.release``: note the client and the round."""

        def wrapped(client: PrivateClient, key: Any, *rest: Any) -> Any:
            self._round, self._client = key.server_round, client.client_id
            return release(client, key, *rest)

        return wrapped

    def sanitized(self, sanitize: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``sanitize``: keep the bounded sample gradient."""

        def wrapped(gradients: np.ndarray, event: Any, noise: Any) -> Any:
            bounded = clip(gradients, event.clipping, event.clipping_bound)
            self.keep(f"update/{self._client}", bounded)
            return sanitize(gradients, event, noise)

        return wrapped

    def clipped(self, clip_update: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``clip_update``: keep the bounded model update."""

        def wrapped(update: np.ndarray, event: Any) -> Any:
            found = clip_update(update, event)
            self.keep(f"update/{self._client}", found.values_P)
            return found

        return wrapped

    def checked(self, check: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
        """Wrap the guard's check of a request: keep its arrays."""

        def wrapped(request: Any, *rest: Any) -> Any:
            self._round = request.server_round
            for attribute, kind in names.items():
                self.keep(f"request/{kind}", getattr(request, attribute))
            return check(request, *rest)

        return wrapped

    def combined(self, combine: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``combine``: keep the mean sanitized gradient."""

        def wrapped(gradients: Any) -> Any:
            found = combine(gradients)
            self.keep("mean", found)
            return found

        return wrapped

    def moved(self, move_critic: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``move_critic``: keep the noisy mean update."""

        def wrapped(trainer: Any, mean: np.ndarray, rate: float) -> Any:
            self.keep("mean", mean)
            return move_critic(trainer, mean, rate)

        return wrapped

    def reported(self, on_round: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``RunRecorder.on_round``: keep the generator's weights."""

        def wrapped(recorder: RunRecorder, report: Any) -> Any:
            self.keep("generator", to_state_vector(recorder.trainer.generator))
            return on_round(recorder, report)

        return wrapped


def record(algorithm: str, folder: Path) -> dict[str, Any]:
    """Run five rounds, write the arrays, and return their short form."""
    recorder = Recorder()
    sent = {"samples_BCHW": "samples", "labels_B": "labels"}
    models = {"generator_P": "generator", "critic_Q": "critic"}
    strategy, trainer = sample_gradient_strategy, AveragedCriticTrainer
    run = folder / f"run-{algorithm}"
    settings = ["rounds=5", "evaluation-samples=0", "seed=0", *OWN_SETTINGS[algorithm]]
    words = ["--config", "simulations/configs/demo.toml", "--runtime", "in-process"]
    words += ["--workers", "1", "--output", str(run)]
    with (
        patch.object(PrivateClient, "release", recorder.begin_release(PrivateClient.release)),
        patch.object(guard, "sanitize", recorder.sanitized(guard.sanitize)),
        patch.object(guard, "check_request", recorder.checked(guard.check_request, sent)),
        patch.object(update_guard, "clip_update", recorder.clipped(update_guard.clip_update)),
        patch.object(
            update_guard,
            "check_update_request",
            recorder.checked(update_guard.check_update_request, models),
        ),
        patch.object(strategy, "combine", recorder.combined(strategy.combine)),
        patch.object(trainer, "move_critic", recorder.moved(trainer.move_critic)),
        patch.object(RunRecorder, "on_round", recorder.reported(RunRecorder.on_round)),
    ):
        status = simulate([*words, *(word for s in settings for word in ("--set", s))])
    if status != 0:
        raise SystemExit(f"the run of {algorithm} ended with status {status}")
    np.savez(folder / f"{algorithm}.npz", **recorder.arrays)  # type: ignore[arg-type]
    return {
        "arrays": {name: _short(values) for name, values in sorted(recorder.arrays.items())},
        "ledger_events": _ledger_events(run),
        "privacy": json.loads((run / "summary.json").read_text())["privacy"],
    }


def _short(values: np.ndarray) -> dict[str, Any]:
    flat = values.astype(np.float64).ravel()
    signs = np.random.Generator(np.random.Philox(key=0)).choice([-1.0, 1.0], (PROJECTIONS, 1))
    rows = np.random.Generator(np.random.Philox(key=1)).choice([-1.0, 1.0], flat.size)
    turned = [np.roll(rows, 7919 * k) for k in range(PROJECTIONS)]
    products = (signs[:, 0] * (np.stack(turned) @ flat)).tolist()
    norm = float(np.linalg.norm(flat))
    return {"shape": list(values.shape), "norm": norm, "products": products}


def _ledger_events(run: Path) -> list[dict[str, Any]]:
    """Return (user, round, event) of every reservation, in a fixed order."""
    events = []
    for path in sorted((run / "clients").rglob("ledger.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line).get("entry", {})
            if entry.get("kind") == "reserve":
                events.append({key: entry[key] for key in ("user", "server_round", "event")})
    return sorted(events, key=lambda e: (e["server_round"], e["user"]))


def main() -> None:
    """Record both algorithms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = {"commit": commit, **{name: record(name, folder) for name in OWN_SETTINGS}}
    (folder / "numbers.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
