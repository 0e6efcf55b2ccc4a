"""Pictures in folders by writer and class, and the images that a device's owner keeps.

Shapes: N images, of H = W = 28 pixels and one channel, whatever the size of the pictures.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.characters import (
    IMAGE_SHAPE,
    STORED_SHAPES,
    invert_paper,
    whole_class_set,
)
from fed_gswgan.data.check import Check
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.files import npz_arrays, own_folder, skipped_notes, visible
from fed_gswgan.data.held_out import SplitSource
from fed_gswgan.data.image_file import SUFFIXES, read_ink

LAYOUT = "WRITER/CLASS/*.png"
OWN_FORMATS = "a folder of CLASS/*.png, or a file .npz, .h5 or .hdf5"
Files = tuple[tuple[str, Path], ...]  # the class and the path of each image


def open_image_folder(data_dir: str, classes: str, min_images_per_writer: int) -> SplitSource:
    """Open a folder with a folder for each writer, and in it one for each class.

    Class names are the folder names of all writers, in natural order (2 before 10) and with their
    letters composed (Unicode NFC). The minimum is compared with a writer's images of all classes.
    What operating systems leave behind, and files beside the writers' folders, is skipped. A link
    to a folder is followed; a writer who is there twice by it is read once.

    Raises:
        FileNotFoundError: no folder.
        ValueError: ``data_dir`` is empty, ``classes`` is not ``all``, a writer without images, a
            file where a folder belongs or one that is no picture, two classes whose names differ
            in their Unicode form alone, or a link that leads nowhere or to a folder around it.
    """
    root = own_folder(data_dir, "folder", LAYOUT)
    skipped: list[Path] = []
    entries = visible(root, skipped.append)
    folders = [path for path in entries if _is_folder(path)]
    skipped += [path for path in entries if not path.is_dir()]
    notes, writers = _followed_once(folders)
    files = {folder.name: class_files(folder, skipped.append) for folder in writers}
    if not files:
        raise ValueError(f"{root}: must hold a folder for each writer ({LAYOUT}), and has none")
    _require_one_form(files.values())
    names = {_composed(name) for paths in files.values() for name, _ in paths}
    class_set = whole_class_set(classes, tuple(sorted(names, key=_natural)), accepted=("all",))
    return SplitSource(
        name="folder",
        unit="one writer's folder",
        image_shape=IMAGE_SHAPE,
        class_names=class_set.names,
        image_counts={writer_id: len(paths) for writer_id, paths in files.items()},
        min_images_per_writer=min_images_per_writer,
        read=lambda writer_id: _read_files(files[writer_id], class_set.names, root / writer_id),
        notes=(*notes, *skipped_notes([str(path.relative_to(root)) for path in skipped])),
    )


def class_files(writer_folder: Path, skip: Callable[[Path], None] = lambda path: None) -> Files:
    """Return class and path of each of one writer's images, by class and file name.

    Args:
        writer_folder: holds a folder for each class.
        skip: is told what is left out.

    Raises:
        ValueError: no image, a file where a class's folder belongs, or one that is no picture.
    """
    files = tuple(
        (folder.name, _require_picture(path))
        for folder in visible(writer_folder, skip)
        for path in visible(_require_folder(folder), skip)
    )
    if not files:
        raise ValueError(f"{writer_folder}: a writer without images; add some or remove the folder")
    return files


def _is_folder(path: Path) -> bool:
    """Tell whether an entry is a folder, or a link to one that does not lead back."""
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: a link that leads nowhere ({error}); remove it") from error
        if path.parent.resolve().is_relative_to(target):
            raise ValueError(f"{path}: a link to {target}, which it lies in: a loop; remove it")
    return path.is_dir()


def _followed_once(folders: list[Path]) -> tuple[list[str], list[Path]]:
    """Leave out links to a folder that is there already; say which."""
    kept: dict[Path, Path] = {}
    notes = []
    for folder in sorted(folders, key=lambda path: (path.is_symlink(), path)):
        first = kept.setdefault(folder.resolve(), folder)
        if first is not folder:
            notes.append(f"{folder.name!r} is a link to {first.name!r}, which is read once")
    return notes, sorted(kept.values())


def _require_one_form(writers: Any) -> None:
    """Refuse classes that look the same and are two."""
    forms: dict[str, Path] = {}
    for name, path in (one for files in writers for one in files):
        before = forms.setdefault(_composed(name), path)
        if before.parent.name != name:
            raise ValueError(
                f"{path.parent}: the class {name!r} and that of {before.parent} have the same "
                "letters in two Unicode forms (NFC and NFD); rename one folder as the other"
            )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _natural(name: str) -> tuple[Any, ...]:
    """Order numbers in a name as numbers, and letters whatever their case."""
    parts = re.split(r"(\d+)", name.casefold())
    return (*((int(part), "") if part.isdecimal() else (-1, part) for part in parts), (-2, name))


def _read_files(files: Files, class_names: tuple[str, ...], folder: Path) -> LabelledImages:
    return LabelledImages(
        np.stack([read_ink(path) for _, path in files]),
        np.array([class_names.index(_composed(name)) for name, _ in files], dtype=np.int64),
        origin=str(folder),
    )


def _require_folder(path: Path) -> Path:
    if not _is_folder(path):
        raise ValueError(f"{path}: must be a class's folder ({LAYOUT}); move the file into one")
    return path


def _require_picture(path: Path) -> Path:
    if path.is_symlink() and not path.exists():
        raise ValueError(
            f"{path}: a link to a file that is not there; remove it, or fetch the file"
        )
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise ValueError(
            f"{path}: must be a picture, one of {', '.join(SUFFIXES)}, in {LAYOUT}; convert it or "
            "move it away"
        )
    return path


def read_own_images(path: Path, class_names: tuple[str, ...]) -> LabelledImages:
    """Read all images of a device's owner.

    A folder holds a folder for each class that occurs, named as the class, with PNG files of
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
        images = _labelled(path, *npz_arrays(path, "images", "labels"))
    elif path.suffix in (".h5", ".hdf5"):
        images = _of_hdf5(path)
    else:
        path.stat()  # raises if the file is missing
        raise ValueError(f"{path}: must be {OWN_FORMATS}")
    if not len(images.labels):
        raise ValueError(f"{path}: no image; must hold at least one")
    Check(class_names, ink_on_paper=True).add(images, str(path))
    return images


def _of_folder(path: Path, class_names: tuple[str, ...]) -> LabelledImages:
    for folder in visible(path):
        if _composed(folder.name) not in class_names:
            raise ValueError(f"{folder}: must be named as one of the classes {list(class_names)}")
    return _read_files(class_files(path), class_names, path)


def _of_hdf5(path: Path) -> LabelledImages:
    import h5py

    path.stat()
    try:
        with h5py.File(path, "r") as file:
            name = "pixels" if "pixels" in file else "images"
            if missing := [wanted for wanted in (name, "labels") if wanted not in file]:
                raise ValueError(f"{path}: must hold {name} and labels; {missing[0]} is missing")
            images, labels = file[name][()], file["labels"][()]
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: must be an HDF5 file of arrays ({error})") from error
    if name == "pixels":
        images = invert_paper(images, f"{path}, pixels")
    return _labelled(path, images, labels)


def _labelled(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> LabelledImages:
    if images.shape[1:] not in STORED_SHAPES:
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
