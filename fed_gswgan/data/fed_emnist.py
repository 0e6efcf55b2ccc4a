"""Fed-EMNIST as TensorFlow Federated packs it: two HDF5 files, a group for each writer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fed_gswgan.data.character_rows import invert_paper, keep_classes
from fed_gswgan.data.class_sets import ClassSet, emnist_class_set
from fed_gswgan.data.data_location import ENVIRONMENT_VARIABLE, data_root, require_file
from fed_gswgan.data.people_source import PeopleSource
from fed_gswgan.data.writer_shard import LabelledImages

TRAIN_FILE = Path("FedEMNIST/fed_emnist_train.h5")
TEST_FILE = Path("FedEMNIST/fed_emnist_test.h5")


def open_fed_emnist(data_dir: str, classes: str, min_images_per_writer: int) -> PeopleSource:
    """Open both files; a writer's shard is their training and their test images together.

    The minimum is compared with the images of the chosen classes in the *training* file. The test
    file splits each person's characters, so it is not used to evaluate: whoever is a client stays
    home whole, and whoever is held out is a client nowhere. The folder, that of ``data_dir`` or
    else of FED_GSWGAN_DATA, holds ``FedEMNIST/fed_emnist_{train,test}.h5``.

    Raises:
        FileNotFoundError: a file is missing, or no folder is named.
        ValueError: a file is not of this layout, or holds an empty writer or an unknown label.
    """
    root = data_root(data_dir)
    if root is None:
        raise FileNotFoundError(
            f"data-dir='' and {ENVIRONMENT_VARIABLE} unset: set one of them to the folder "
            f"that holds {TRAIN_FILE} and {TEST_FILE}"
        )
    advice = f"data-dir or {ENVIRONMENT_VARIABLE} must name the folder that holds FedEMNIST/"
    class_set = emnist_class_set(classes)
    archive = FedEmnistArchive(
        train_path=require_file(root / TRAIN_FILE, advice),
        test_path=require_file(root / TEST_FILE, advice),
        class_set=class_set,
    )
    return PeopleSource(
        name="fed-emnist",
        unit="one EMNIST writer",
        class_names=class_set.names,
        image_counts=archive.training_counts(),
        min_images_per_writer=min_images_per_writer,
        read=archive.read,
    )


@dataclass(frozen=True)
class FedEmnistArchive:
    """The two files, opened for each reading and closed after it, so that no handle is kept."""

    train_path: Path
    test_path: Path
    class_set: ClassSet

    def training_counts(self) -> dict[str, int]:
        """Return each writer's number of training images in the chosen classes."""
        counts = {}
        with _examples(self.train_path) as examples:
            for writer_id, group in examples.items():
                origin = f"{self.train_path}:examples/{writer_id}"
                labels = _array(group, "label", origin)
                counts[writer_id] = self.class_set.count_kept(labels, f"{origin}/label")
        return counts

    def read(self, writer_id: str) -> LabelledImages:
        """Return all images of one writer, training images first."""
        images, labels = [], []
        for path in (self.train_path, self.test_path):
            with _examples(path) as examples:
                if writer_id in examples:
                    origin = f"{path}:examples/{writer_id}"
                    pixels = _array(examples[writer_id], "pixels", origin)
                    images.append(invert_paper(pixels, f"{origin}/pixels"))
                    labels.append(_array(examples[writer_id], "label", origin))
        origin = f"{self.train_path}, {self.test_path.name}:examples/{writer_id}"
        return keep_classes(np.concatenate(images), np.concatenate(labels), self.class_set, origin)


@contextmanager
def _examples(path: Path) -> Iterator[Any]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: must be an HDF5 file ({error}); fetch it again") from error
    with file:
        if "examples" not in file or not len(file["examples"]):
            raise ValueError(f"{path}: must hold writers under 'examples'; fetch it again")
        yield file["examples"]


def _array(group: Any, key: str, origin: str) -> Any:
    if key not in group:
        raise ValueError(f"{origin}: must hold 'pixels' and 'label', and has no {key!r}")
    array = group[key][()]
    if not array.size:
        raise ValueError(f"{origin}/{key}: a writer without images; remove the group")
    return array
