"""FEMNIST from Flower Datasets, dealt by ``writer_id``; needs the extra ``flwr-datasets``."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast, overload

import numpy as np

from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set, invert_paper
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.held_out import SplitSource
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


def open_flwr_femnist(classes: str, min_images_per_writer: int) -> SplitSource:
    """Download (once, to Hugging Face's cache) and open ``flwrlabs/femnist``.

    Raises:
        ModuleNotFoundError: the extra is not installed.
        ValueError: the table is not the one expected.
    """
    return source_of_rows(_load_rows(), classes, min_images_per_writer)


def source_of_rows(rows: Rows, classes: str, min_images_per_writer: int) -> SplitSource:
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

    def read(writer_id: str) -> LabelledImages:
        pixels = [
            np.asarray(rows[number]["image"].convert("L")) for number in row_numbers[writer_id]
        ]
        if sizes := {image.shape for image in pixels} - {IMAGE_SHAPE[1:]}:
            raise ValueError(f"{_origin(writer_id)}: images must be 28x28, not {sorted(sizes)}")
        images = invert_paper(np.stack(pixels).astype(np.float32) / 255, _origin(writer_id))
        return class_set.keep(images, labels[row_numbers[writer_id]], _origin(writer_id))

    return SplitSource(
        name="flwr-femnist",
        unit="one EMNIST writer",
        image_shape=IMAGE_SHAPE,
        class_names=class_set.names,
        image_counts={
            writer_id: class_set.count_kept(labels[numbers], _origin(writer_id))
            for writer_id, numbers in row_numbers.items()
        },
        min_images_per_writer=min_images_per_writer,
        read=read,
    )


def _origin(writer_id: str) -> str:
    return f"{DATASET}:writer_id={writer_id}"


def _load_rows() -> Rows:
    with needs_extra("flwr-datasets", "dataset='flwr-femnist'"):
        from flwr_datasets import FederatedDataset
        from flwr_datasets.partitioner import NaturalIdPartitioner
    federated = FederatedDataset(
        dataset=DATASET,
        partitioners={"train": NaturalIdPartitioner(partition_by="writer_id")},
        shuffle=False,
    )
    # The whole split, grouped here: the partitioner has the same groups, but not their sizes.
    return cast(Rows, federated.load_split("train"))
