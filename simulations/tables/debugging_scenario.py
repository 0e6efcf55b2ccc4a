"""Federated debugging of a data fault: ``python -m simulations.tables.debugging_scenario``.

Ink and paper are swapped for a share of the writers, as a faulty application would do. A deployed
classifier reads those writers badly, and no engineer may look at their images. Two generators are
trained: one on the writers that are read well, one on the others. Side by side, their samples show
the fault. On real devices each client would find out for itself to which part it belongs; that it
answers at all then tells one bit of its data, so choose the rule with its users' consent.

Source: Augenstein et al., arXiv 1911.06679, section 6.
"""

from pathlib import Path
from typing import Any

import torch
import typer

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import WriterSource
from fed_gswgan.data.registry import open_source
from fed_gswgan.evaluation.classifier import accuracy, train_classifier
from fed_gswgan.reporting.pictures import drawn_samples, save_side_by_side
from fed_gswgan.reporting.run_folder import replace_json
from fed_gswgan.reporting.trained_generator import load_generator
from fed_gswgan.settings import read_toml
from simulations.run import simulate

SEED = 0
PARTS = ("well", "badly")


def main(
    config: Path = Path("simulations/configs/debugging.toml"),
    output: Path = Path("runs/debugging"),
    threshold: float = 0.7,
    runtime: str = "ray",
) -> None:
    """Split the writers, train both generators, and print what their samples show.

    The config holds the settings of both runs, swapped-share among them. Writers whose images are
    read with an accuracy below the threshold are read badly.
    """
    settings = read_toml(config)
    shared = Config.from_table(settings).shared
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"swapped_share": shared.swapped_share}
    for part, writers in split_writers(open_source(shared), threshold).items():
        run, writers_file = output / part, output / f"{part}.txt"
        writers_file.write_text("\n".join(writers) + "\n")
        changed = {**settings, "writers-file": str(writers_file)}
        if status := simulate(changed, output=str(run), runtime=runtime):
            raise typer.Exit(status)
        ink = mean_ink(run)
        found[part] = {"writers": len(writers), "mean_ink": ink}
        print(f"{len(writers)} writers are read {part}: mean ink of the samples {ink:.2f}")
    titles = {f"read {part}": output / part for part in PARTS}
    save_side_by_side(drawn_samples(titles), output / "samples.png")
    found["swapped"] = found["badly"]["mean_ink"] > 0.5 > found["well"]["mean_ink"]
    replace_json(output / "debugging.json", found)
    verdict = "the writers read badly have ink and paper swapped" if found["swapped"] else "no swap"
    print(f"what the samples show: {verdict}; {output / 'samples.png'}")


def split_writers(source: WriterSource, threshold: float) -> dict[str, tuple[str, ...]]:
    """Return the writers that a classifier of held-out images reads well, and those it reads badly.

    The threshold is an accuracy in [0, 1] on a writer's images; below it is badly.

    Raises:
        ValueError: one of the two parts is empty.
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


if __name__ == "__main__":
    typer.run(main)
