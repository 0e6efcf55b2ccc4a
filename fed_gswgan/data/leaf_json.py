"""FEMNIST as LEAF writes it: JSON files in one folder, or in its ``train`` and ``test``."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_gswgan.data.character_rows import invert_paper, keep_classes
from fed_gswgan.data.class_sets import ClassSet, emnist_class_set
from fed_gswgan.data.data_location import own_folder
from fed_gswgan.data.leaf_index import UserSpan, index_users
from fed_gswgan.data.people_source import PeopleSource
from fed_gswgan.data.writer_shard import LabelledImages

LAYOUT = "*.json in it, or in its folders train/ and test/"


def open_leaf_femnist(data_dir: str, classes: str, min_images_per_writer: int) -> PeopleSource:
    """Open a folder of LEAF files; a writer's images in all files are put together.

    So LEAF's own split into train and test is not used, be it by sample or by user. The minimum is
    compared with a writer's images of the chosen classes in all files.

    Raises:
        FileNotFoundError: no folder, or no JSON file in it.
        ValueError: ``data_dir`` is empty; or a file is not of LEAF's layout, or holds an empty
            writer or an unknown label.
    """
    folder = own_folder(data_dir, "leaf-femnist", LAYOUT)
    class_set = emnist_class_set(classes)
    archive = LeafArchive(_spans_by_writer(_json_files(folder)), class_set)
    return PeopleSource(
        name="leaf-femnist",
        unit="one EMNIST writer",
        class_names=class_set.names,
        image_counts=archive.counts(),
        min_images_per_writer=min_images_per_writer,
        read=archive.read,
    )


@dataclass(frozen=True, repr=False)
class LeafArchive:
    """Each writer's places in the files; the files are opened for each reading."""

    spans: dict[str, list[UserSpan]]
    class_set: ClassSet

    def counts(self) -> dict[str, int]:
        """Return each writer's number of images in the chosen classes."""
        return {
            writer_id: sum(
                self.class_set.count_kept(np.array(span.read_labels()), f"{span.origin}/y")
                for span in spans
            )
            for writer_id, spans in self.spans.items()
        }

    def read(self, writer_id: str) -> LabelledImages:
        """Return all images of one writer, in the order of the files."""
        images, labels = [], []
        for span in self.spans[writer_id]:
            rows, numbers = span.read()
            if not all(isinstance(row, list) and len(row) == 784 for row in rows):
                raise ValueError(f"{span.origin}/x: every image must have 784 numbers")
            images.append(invert_paper(np.array(rows), f"{span.origin}/x"))
            labels.append(np.array(numbers))
        origin = self.spans[writer_id][0].origin
        return keep_classes(np.concatenate(images), np.concatenate(labels), self.class_set, origin)


def _json_files(folder: Path) -> list[Path]:
    files = [
        path
        for part in (folder, folder / "train", folder / "test")
        for path in sorted(part.glob("*.json"))
    ]
    if not files:
        raise FileNotFoundError(f"{folder}: no LEAF file; data-dir must have {LAYOUT}")
    return files


def _spans_by_writer(files: Sequence[Path]) -> dict[str, list[UserSpan]]:
    spans = defaultdict(list)
    for path in files:
        for span in index_users(path):
            spans[span.user].append(span)
    return dict(spans)
