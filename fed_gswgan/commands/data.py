"""``fed-gswgan data``: what a data set holds."""

import argparse
from typing import Any

from fed_gswgan.config import CLASS_SETS, DATASETS, DataConfig


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("data", help="what a data set holds")
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--classes", choices=CLASS_SETS, default="all")
    parser.add_argument("--min-images-per-writer", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=data)


def data(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a data set holds: what a run would see, none of it from a shard."""
    from fed_gswgan.data.registry import open_source

    source = open_source(
        DataConfig(
            dataset=options.dataset,
            data_dir=options.data_dir,
            classes=options.classes,
            min_images_per_writer=options.min_images_per_writer,
        )
    )
    return {
        "dataset": source.name,
        "user": source.unit,
        "clients": len(source.writer_ids),
        "classes": len(source.class_names),
        "held_out_writers": len(source.held_out_writers),
        "held_out_images": len(source.held_out().labels),
    }
