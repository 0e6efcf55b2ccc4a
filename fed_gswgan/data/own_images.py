"""The images of one person on their own device: PNG files by class, an NPZ or an HDF5 file.

Shapes: N images, of H = W = 28 pixels and one channel.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.character_rows import invert_paper
from fed_gswgan.data.image_file import read_ink
from fed_gswgan.data.image_folder import class_files, visible
from fed_gswgan.data.writer_shard import IMAGE_SHAPE, LabelledImages

FORMATS = "a folder of CLASS/*.png, or a file .npz, .h5 or .hdf5"
HDF5_SUFFIXES = (".h5", ".hdf5")


def read_own_images(path: Path, class_names: tuple[str, ...]) -> LabelledImages:
    """Read all images of one person.

    A folder holds a folder for each class the person wrote, named as the class, with PNG files of
    any size, dark ink on light paper. A file holds ``images`` and ``labels``: bytes 0..255 or
    numbers in [0, 1], of shape (N, 28, 28), (N, 1, 28, 28) or (N, 784), ink high and paper 0; the
    labels count the classes from 0. In HDF5 ``pixels`` may stand in place of ``images``, with ink
    0 on paper 1, as in Fed-EMNIST's files.

    Args:
        path: the folder or the file.
        class_names: of the run, in the order of the labels.

    Raises:
        FileNotFoundError, PermissionError: it cannot be read.
        ValueError: it is not as described; names the place, the rule and the value.
    """
    if path.is_dir():
        images = _of_folder(path, class_names)
    elif path.suffix == ".npz":
        images = _of_npz(path)
    elif path.suffix in HDF5_SUFFIXES:
        images = _of_hdf5(path)
    else:
        path.stat()  # a missing one is said to be missing
        raise ValueError(f"{path}: must be {FORMATS}")
    if images.labels.max() >= len(class_names):
        raise ValueError(
            f"{path}: label {images.labels.max()} must be 0 .. {len(class_names) - 1}, the "
            "classes in device.toml"
        )
    _require_paper(images, path)
    return images


def _of_folder(path: Path, class_names: tuple[str, ...]) -> LabelledImages:
    for folder in visible(path):
        if folder.name not in class_names:
            raise ValueError(f"{folder}: must be named as one of the classes {list(class_names)}")
    files = class_files(path)
    return LabelledImages(
        np.stack([read_ink(file) for _, file in files]),
        np.array([class_names.index(name) for name, _ in files], dtype=np.int64),
        origin=str(path),
    )


def _of_npz(path: Path) -> LabelledImages:
    try:
        with np.load(path, allow_pickle=False) as file:
            _require_names(path, list(file), ("images", "labels"))
            images, labels = file["images"], file["labels"]
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f"{path}: must be an NPZ file of numbers ({error})") from error
    return _labelled(path, images, labels)


def _of_hdf5(path: Path) -> LabelledImages:
    import h5py

    path.stat()
    try:
        with h5py.File(path, "r") as file:
            name = "pixels" if "pixels" in file else "images"
            _require_names(path, list(file), (name, "labels"))
            images, labels = file[name][()], file["labels"][()]
    except OSError as error:
        raise ValueError(f"{path}: must be an HDF5 file ({error})") from error
    if name == "pixels":
        rows = images.reshape(len(images), -1) if np.ndim(images) == 4 else images
        images = invert_paper(rows, f"{path}, pixels")
    return _labelled(path, images, labels)


def _labelled(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> LabelledImages:
    if images.shape[1:] not in (IMAGE_SHAPE, IMAGE_SHAPE[1:], (784,)):
        raise ValueError(
            f"{path}: images must be (N, 28, 28), (N, 1, 28, 28) or (N, 784), not {images.shape}"
        )
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    elif not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"{path}: images must be bytes or numbers in [0, 1], not {images.dtype}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path}: labels must be whole numbers, not {labels.dtype}")
    pixels = images.astype(np.float32).reshape(-1, *IMAGE_SHAPE)
    return LabelledImages(pixels, labels.astype(np.int64), origin=str(path))


def _require_names(path: Path, names: list[str], needed: tuple[str, ...]) -> None:
    if missing := [name for name in needed if name not in names]:
        raise ValueError(f"{path}: must hold {' and '.join(needed)}; {missing[0]} is missing")


def _require_paper(images: LabelledImages, path: Path) -> None:
    """Refuse white on black as black on white: a critic would learn the paper."""
    rows = images.images[:, 0]
    border = np.concatenate([rows[:, 0], rows[:, -1], rows[:, :, 0], rows[:, :, -1]], axis=1)
    if np.median(border) > 0.5:
        raise ValueError(
            f"{path}: paper must be 0 and ink 1, and the borders are mostly ink; invert the images"
        )
