"""FEMNIST from Flower Datasets, dealt by ``writer_id``; needs the extra ``flwr-datasets``."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import numpy as np

from fed_gswgan.data.character_rows import invert_paper, keep_classes
from fed_gswgan.data.class_sets import ClassSet, emnist_class_set
from fed_gswgan.data.people_source import PeopleSource
from fed_gswgan.data.writer_shard import LabelledImages
from fed_gswgan.optional_extra import needs_extra

DATASET = "flwrlabs/femnist"


class Rows(Protocol):
    """A table as Hugging Face's ``Dataset``: a column by name, a row by number.

    Columns: ``writer_id`` (text), ``character`` (0..61), ``image`` (a PIL image of 28x28, dark ink
    on white paper).
    """

    @overload
    def __getitem__(self, key: str, /) -> Iterable[Any]: ...

    @overload
    def __getitem__(self, key: int, /) -> Mapping[str, Any]: ...


def open_flwr_femnist(classes: str, min_images_per_writer: int) -> PeopleSource:
    """Download (once, to Hugging Face's cache) and open ``flwrlabs/femnist``.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: the table is not the one expected.
    """
    return people_of_rows(_load_rows(), classes, min_images_per_writer)


def people_of_rows(rows: Rows, classes: str, min_images_per_writer: int) -> PeopleSource:
    """Group the rows of a table by writer; images are decoded when a shard is read.

    The minimum is compared with a writer's rows of the chosen classes.

    Raises:
        ValueError: a character outside 0..61, or too few writers.
    """
    class_set = emnist_class_set(classes)
    row_numbers: dict[str, list[int]] = defaultdict(list)
    for number, writer_id in enumerate(rows["writer_id"]):
        row_numbers[str(writer_id)].append(number)
    labels = np.array(list(rows["character"]))
    table = FemnistTable(rows, dict(row_numbers), class_set)
    return PeopleSource(
        name="flwr-femnist",
        unit="one EMNIST writer",
        class_names=class_set.names,
        image_counts={
            writer_id: class_set.count_kept(labels[numbers], table.origin(writer_id))
            for writer_id, numbers in row_numbers.items()
        },
        min_images_per_writer=min_images_per_writer,
        read=table.read,
    )


@dataclass(frozen=True, repr=False)
class FemnistTable:
    """A table, and the rows of each writer in it."""

    rows: Rows
    row_numbers: dict[str, list[int]]
    class_set: ClassSet

    def origin(self, writer_id: str) -> str:
        """Return what an error names."""
        return f"{DATASET}:writer_id={writer_id}"

    def read(self, writer_id: str) -> LabelledImages:
        """Return all images of one writer, in the table's order."""
        origin = self.origin(writer_id)
        rows = [self.rows[number] for number in self.row_numbers[writer_id]]
        pixels = [np.asarray(row["image"].convert("L")) for row in rows]
        sizes = {image.shape for image in pixels}
        if sizes != {(28, 28)}:
            raise ValueError(f"{origin}: images must be 28x28, not {sorted(sizes)}")
        images = invert_paper(np.stack(pixels).astype(np.float32) / 255, origin)
        labels = np.array([row["character"] for row in rows])
        return keep_classes(images, labels, self.class_set, origin)


def _load_rows() -> Rows:
    with needs_extra("flwr-datasets", "dataset='flwr-femnist'"):
        from flwr_datasets import FederatedDataset
        from flwr_datasets.partitioner import NaturalIdPartitioner
    federated = FederatedDataset(
        dataset=DATASET,
        partitioners={"train": NaturalIdPartitioner(partition_by="writer_id")},
        shuffle=False,
    )
    # The whole split, grouped here: the partitioner gives the same groups, yet without their sizes.
    return cast(Rows, federated.load_split("train"))
