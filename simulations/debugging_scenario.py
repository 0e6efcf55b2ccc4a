"""Finds a fault in data that nobody may look at: ``python -m simulations.debugging_scenario``.

Ink and paper are swapped for a share of the writers, as a faulty application would do. A deployed
classifier reads those writers badly, and nobody can see why. Two generators are trained, one on the
writers that it reads well and one on those it reads badly; side by side, their samples show the
fault. On real devices each would find out for itself to which part it belongs, and that it answers
at all then tells one bit of its data: choose such a part with a rule that its users agreed to.

Source: Augenstein et al., arXiv 1911.06679, section 6.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fed_gswgan.comparison.sample_pictures import drawn_samples, save_side_by_side
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import WriterSource
from fed_gswgan.data.registry import open_source
from fed_gswgan.evaluation.classifier import accuracy, train_classifier
from fed_gswgan.reporting.run_folder import replace_json
from fed_gswgan.reporting.trained_generator import load_generator
from simulations.run import main as run_simulation

SEED = 0
PARTS = ("well", "badly")


def main(arguments: list[str] | None = None) -> int:
    """Split the writers, train both generators, and say what they look like."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.debugging_scenario", description=__doc__
    )
    parser.add_argument(
        "--config", type=Path, default=Path("simulations/configs/debugging.toml"),
        help="settings of both runs, swapped-share among them",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/debugging"))
    parser.add_argument("--threshold", type=float, default=0.7, help="of the accuracy on a writer")
    parser.add_argument("--runtime", choices=("ray", "in-process"), default="ray")
    options = parser.parse_args(arguments)
    config = Config.from_table(tomllib.loads(options.config.read_text()))
    options.output.mkdir(parents=True, exist_ok=True)
    parts = split_writers(open_source(config.shared), options.threshold)
    found: dict[str, Any] = {"swapped_share": config.shared.swapped_share}
    for part, writers in parts.items():
        writers_file = options.output / f"{part}.txt"
        writers_file.write_text("\n".join(writers) + "\n")
        words = ["--config", str(options.config), "--runtime", options.runtime]
        words += ["--output", str(options.output / part)]
        words += ["--set", f"writers-file={json.dumps(str(writers_file.absolute()))}"]
        if status := run_simulation(words):
            return status
        found[part] = {"writers": len(writers), "mean_ink": mean_ink(options.output / part)}
    titles = {f"read {part}": options.output / part for part in PARTS}
    save_side_by_side(drawn_samples(titles), options.output / "samples.png")
    found["swapped"] = found["badly"]["mean_ink"] > 0.5 > found["well"]["mean_ink"]
    replace_json(options.output / "debugging.json", found)
    _say(found, options.output)
    return 0


def split_writers(source: WriterSource, threshold: float) -> dict[str, tuple[str, ...]]:
    """Return whom a classifier of held-out images reads well, and whom badly.

    Args:
        source: of the writers.
        threshold: accuracy in [0, 1] on a writer's images; below it is badly.

    Raises:
        ValueError: one of the two is empty.
    """
    held_out = source.held_out()
    images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
    deployed = train_classifier(images, labels, len(source.class_names), SEED)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for writer in source.writer_ids:
        shard = source.shard(writer)
        read = accuracy(deployed, torch.from_numpy(shard.images), torch.from_numpy(shard.labels))
        parts["well" if read >= threshold else "badly"].append(writer)
    for part, writers in parts.items():
        if not writers:
            raise ValueError(f"threshold={threshold}: no writer is read {part}; choose another")
    return {part: tuple(writers) for part, writers in parts.items()}


def mean_ink(run: Path, count: int = 20) -> float:
    """Return the mean pixel of a generator's samples: about 0.2 for ink on paper."""
    trained = load_generator(run)
    labels = torch.arange(trained.spec.num_classes).repeat_interleave(count)
    return float(trained.sampler(labels, SEED).mean())


def _say(found: dict[str, Any], folder: Path) -> None:
    console = Console()
    for part in PARTS:
        console.print(
            f"{found[part]['writers']} writers are read {part}: mean ink of the samples "
            f"{found[part]['mean_ink']:.2f}", highlight=False,
        )  # fmt: skip
    verdict = "the writers read badly have ink and paper swapped" if found["swapped"] else "no swap"
    picture = folder / "samples.png"
    console.print(f"what the samples show: {verdict}; {picture}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
