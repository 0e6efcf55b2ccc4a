"""EMNIST by writer, in two packagings: TensorFlow Federated's HDF5 files and LEAF's JSON files."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.characters import (
    IMAGE_SHAPE,
    PIXELS,
    ClassSet,
    emnist_class_set,
    invert_paper,
)
from fed_gswgan.data.client_dataset import Images, LabelledImages
from fed_gswgan.data.files import (
    ENVIRONMENT_VARIABLE,
    data_root,
    own_folder,
    require_file,
    skipped_notes,
    visible,
)
from fed_gswgan.data.held_out import SplitSource
from fed_gswgan.progress import steps

UNIT = "one EMNIST writer"

TRAIN_FILE = Path("FedEMNIST/fed_emnist_train.h5")
TEST_FILE = Path("FedEMNIST/fed_emnist_test.h5")

LEAF_LAYOUT = "*.json in it, or in its folders train/ and test/"


def open_fed_emnist(data_dir: str, classes: str, min_images_per_writer: int) -> SplitSource:
    """Open both HDF5 files; a writer's shard is their training and test images together.

    The minimum is compared with the images of the chosen classes in the *training* file. The test
    file splits each writer's characters, so it is not used for evaluation. The folder, that of
    ``data_dir`` or else of FED_GSWGAN_DATA, holds ``FedEMNIST/fed_emnist_{train,test}.h5``.

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
    return SplitSource(
        name="fed-emnist",
        unit=UNIT,
        image_shape=IMAGE_SHAPE,
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
            for writer_id, group in steps("reading Fed-EMNIST", list(examples.items())):
                origin = f"{self.train_path}:examples/{writer_id}"
                labels = _array(group, "label", origin)
                counts[writer_id] = self.class_set.count_kept(labels, f"{origin}/label")
        return counts

    def read(self, writer_id: str) -> LabelledImages:
        """Return all images of one writer, training images first.

        An image that is in both files with the same label is returned once.
        """
        images, labels = [], []
        for path in (self.train_path, self.test_path):
            with _examples(path) as examples:
                if writer_id in examples:
                    origin = f"{path}:examples/{writer_id}"
                    pixels = _array(examples[writer_id], "pixels", origin)
                    images.append(invert_paper(pixels, f"{origin}/pixels"))
                    labels.append(_array(examples[writer_id], "label", origin))
        origin = f"{self.train_path}, {self.test_path.name}:examples/{writer_id}"
        return _once(self.class_set.keep(np.concatenate(images), np.concatenate(labels), origin))


def _once(found: LabelledImages) -> LabelledImages:
    first: dict[tuple[bytes, int], int] = {}
    for row, (image, label) in enumerate(zip(found.images, found.labels.tolist(), strict=True)):
        first.setdefault((image.tobytes(), label), row)
    rows = list(first.values())
    return LabelledImages(found.images[rows], found.labels[rows], found.origin)


@contextmanager
def _examples(path: Path) -> Iterator[Any]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: must be an HDF5 file ({error}); fetch it again") from error
    with file:
        if not isinstance(file.get("examples"), h5py.Group):
            raise ValueError(f"{path}: must hold writers under 'examples'; fetch it again")
        try:
            yield file["examples"]
        except (KeyError, RuntimeError) as error:  # what h5py raises where a file is damaged
            raise ValueError(f"{path}: is a damaged HDF5 file ({error}); fetch it again") from error


def _array(group: Any, key: str, origin: str) -> Any:
    if not isinstance(group, h5py.Group):
        raise ValueError(f"{origin}: must be a writer's group, and is none; remove it")
    if key not in group:
        raise ValueError(f"{origin}: must hold 'pixels' and 'label', and has no {key!r}")
    try:
        array = group[key][()]
    except (OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{origin}/{key}: must be an array ({error}); fetch it again") from error
    if not np.size(array):
        raise ValueError(f"{origin}/{key}: a writer without images; remove the group")
    return array


def open_leaf_femnist(data_dir: str, classes: str, min_images_per_writer: int) -> SplitSource:
    """Read a folder of LEAF files; a writer's images in all files are put together.

    LEAF's own split into train and test is not used, be it by sample or by user. The minimum is
    compared with a writer's images of the chosen classes in all files. All files are read at once,
    and every image stays in memory, at 3,136 bytes each.

    Raises:
        FileNotFoundError: no folder, or no JSON file in it.
        ValueError: ``data_dir`` is empty; or a file is not of LEAF's layout, or holds an empty
            writer, a wrong pixel or an unknown label.
    """
    folder = own_folder(data_dir, "leaf-femnist", LEAF_LAYOUT)
    parts = [part for part in (folder, folder / "train", folder / "test") if part.is_dir()]
    skipped: list[Path] = []
    entries = [path for part in parts for path in visible(part, skipped.append)]
    found = [path for path in entries if path.suffix == ".json"]
    files = [path for path in found if path.is_file()]
    skipped += [path for path in found if path not in files]
    if not files:
        raise FileNotFoundError(f"{folder}: no LEAF file; data-dir must have {LEAF_LAYOUT}")
    class_set = emnist_class_set(classes)
    readings: dict[str, list[tuple[Images, NDArray[Any], str]]] = defaultdict(list)
    for path in files:
        for writer_id, reading in _leaf_writers(path):
            readings[writer_id].append(reading)

    def read(writer_id: str) -> LabelledImages:
        images, labels, origins = zip(*readings[writer_id], strict=True)
        return class_set.keep(np.concatenate(images), np.concatenate(labels), origins[0])

    return SplitSource(
        name="leaf-femnist",
        unit=UNIT,
        image_shape=IMAGE_SHAPE,
        class_names=class_set.names,
        image_counts={
            writer_id: sum(class_set.count_kept(labels, f"{origin}/y") for _, labels, origin in of)
            for writer_id, of in readings.items()
        },
        min_images_per_writer=min_images_per_writer,
        read=read,
        notes=skipped_notes([str(path.relative_to(folder)) for path in skipped]),
    )


def _leaf_writers(path: Path) -> Iterator[tuple[str, tuple[Images, NDArray[Any], str]]]:
    """Yield each writer of one file, with images, labels and what an error names.

    A LEAF file is one JSON object: ``users`` and ``num_samples`` are lists of the same length,
    ``user_data`` maps each user to ``{"x": [[...], ...], "y": [...]}``.
    """
    try:
        content = json.loads(path.read_bytes())
        users, sizes, data = (content[key] for key in ("users", "num_samples", "user_data"))
        if not isinstance(users, list) or not isinstance(sizes, list) or not isinstance(data, dict):
            raise TypeError("two lists and an object are expected")
        if not all(isinstance(user, str) for user in users):
            raise TypeError("users must be strings")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: must be a LEAF file, a JSON object with 'users', 'num_samples' and "
            f"'user_data' ({type(error).__name__}: {error}); fetch it again"
        ) from error
    if not len(users) == len(sizes) == len(data) or set(users) != set(data):
        raise ValueError(
            f"{path}: 'users', 'num_samples' and 'user_data' must name the same users, each once; "
            f"they have {len(users)}, {len(sizes)} and {len(data)}"
        )
    for user, size in zip(users, sizes, strict=True):
        origin = f"{path}:user_data/{user}"
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{path}: num_samples of user {user!r} is {size!r} and must be >= 1")
        if not all(isinstance(data[user], dict) and key in data[user] for key in ("x", "y")):
            raise ValueError(f"{origin}: must be an object with lists 'x' and 'y'")
        rows, labels = data[user]["x"], data[user]["y"]
        for key, values in (("x", rows), ("y", labels)):
            if not isinstance(values, list) or len(values) != size:
                raise ValueError(
                    f"{origin}/{key}: must be a list of {size} entries, as num_samples says; "
                    "the file is damaged"
                )
        try:
            pixels, classes = np.array(rows), np.array(labels)
        except ValueError as error:  # rows of several lengths
            raise ValueError(
                f"{origin}/x: must be (N, 28, 28) or (N, {PIXELS}), and images differ in length"
            ) from error
        yield user, (invert_paper(pixels, f"{origin}/x"), classes, origin)
