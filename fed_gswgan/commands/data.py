"""``fed-gswgan data``: what a data set holds, and how its images were read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fed_gswgan.commands.output import Json, show

data = typer.Typer(no_args_is_help=True, help="data sets: what they hold, how images are read")

Classes = Annotated[str, typer.Option(help="all, digits, letters or merged")]
MOST_NAMED = 20  # writers in the text


@data.command("show")
def show_dataset(
    dataset: str, data_dir: str = "", classes: Classes = "all", as_json: Json = False
) -> None:
    """Show what a data set holds; no client's images are read."""
    source = _open(dataset, data_dir, classes)
    found = {
        "dataset": source.name,
        "user": source.unit,
        "clients": len(source.writer_ids),
        "classes": len(source.class_names),
        "held_out_writers": len(source.held_out_writers),
        "held_out_images": len(source.held_out().labels),
    }
    show(found, as_json)


@data.command()
def check(
    path: Annotated[
        Path,
        typer.Argument(help="a folder of WRITER/CLASS/*.png, of LEAF's files or with FedEMNIST/"),
    ],
    dataset: Annotated[str, typer.Option(help="default: as the folder looks")] = "",
    classes: Classes = "all",
    picture: Annotated[Path | None, typer.Option(help="FILE.png: how images were read")] = None,
    as_json: Json = False,
) -> None:
    """Read and check every image of a data set, as a run does before its first round."""
    from rich.console import Console

    from fed_gswgan.data.check import check_source
    from fed_gswgan.reporting.progress_bar import bars_on

    if picture is not None and picture.suffix != ".png":
        raise ValueError(f"picture={picture} must end in .png")
    with bars_on(Console(stderr=True)):
        source = _open(dataset or _kind(path), str(path), classes)
        checked = check_source(source, source.writer_ids)
    if picture is not None:
        _draw(source, picture)
    writers = [
        {"writer": writer, "images": sum(row)} | dict(zip(checked.class_names, row, strict=True))
        for writer, row in zip(checked.digests, checked.counts.tolist(), strict=True)
    ]
    found = {
        "dataset": source.name,
        "images": int(checked.counts.sum()),
        "images_of_class": dict(
            zip(checked.class_names, checked.counts.sum(axis=0).tolist(), strict=True)
        ),
        "blank_images": checked.blank,
        "held_out_writers": list(checked.held_out_writers),
        "notes": list(checked.notes),
        "writers": writers,
        "picture": str(picture) if picture else None,
    }
    show(found, as_json, lambda _: _lines(checked.lines(), found))


def _open(dataset: str, data_dir: str, classes: str) -> Any:
    from fed_gswgan.data.registry import DataSettings, open_source

    table = {"dataset": dataset, "data-dir": data_dir, "classes": classes}
    return open_source(DataSettings.from_table(table))


def _kind(path: Path) -> str:
    if not path.is_dir():
        raise FileNotFoundError(f"{path} must be a folder; there is none")
    if (path / "FedEMNIST").is_dir():
        return "fed-emnist"
    parts = (path, path / "train", path / "test")
    return "leaf-femnist" if any(any(part.glob("*.json")) for part in parts) else "folder"


def _lines(said: list[str], found: dict[str, Any]) -> str:
    writers = found["writers"]
    lines = [*said, f"images: {found['images']}, of them blank: {found['blank_images']}"]
    lines += [f"  class {name!r}: {count}" for name, count in found["images_of_class"].items()]
    lines += [f"  writer {one['writer']!r}: {one['images']}" for one in writers[:MOST_NAMED]]
    if len(writers) > MOST_NAMED:
        lines.append(f"  and {len(writers) - MOST_NAMED} writers more; --json lists all")
    return "\n".join([*lines, *([f"drawn: {found['picture']}"] if found["picture"] else [])])


def _draw(source: Any, path: Path) -> None:
    """Draw a row for each class: images of clients as they were read, as ink on paper."""
    import numpy as np

    from fed_gswgan.reporting.pictures import PER_CLASS, save_side_by_side

    count = len(source.class_names)
    rows: dict[int, list[Any]] = {label: [] for label in range(count)}
    for writer in source.writer_ids:
        shard = source.shard(writer)
        for image, label in zip(shard.images, shard.labels.tolist(), strict=True):
            if len(rows[label]) < PER_CLASS:
                rows[label].append(image)
        if all(len(row) == PER_CLASS for row in rows.values()):
            break
    pixels = np.zeros((count, PER_CLASS, *source.image_shape), np.float32)
    for label, row in rows.items():
        if row:
            pixels[label, : len(row)] = row
    shown = (pixels * 255).round().astype(np.uint8)
    shown = shown[:, :, 0] if source.image_shape[0] == 1 else np.moveaxis(shown, 2, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_side_by_side({source.name: shown}, path, source.class_names)
