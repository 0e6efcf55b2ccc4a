"""PNG images in folders by writer and class, and the images that a device's owner keeps.

Shapes: N images, of H = W = 28 pixels and one channel, whatever the size of the PNG files.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fed_gswgan.data.characters import IMAGE_SHAPE, PIXELS, invert_paper, whole_class_set
from fed_gswgan.data.client_dataset import Images, LabelledImages
from fed_gswgan.data.files import own_folder
from fed_gswgan.data.held_out import SplitSource

LAYOUT = "WRITER/CLASS/*.png"
OWN_FORMATS = "a folder of CLASS/*.png, or a file .npz, .h5 or .hdf5"
DARK = 128  # of 255

Files = tuple[tuple[str, Path], ...]  # the class and the path of each image


def read_ink(path: Path) -> Images:
    """Read dark ink on light paper.

    The image is padded with white to a square, brought to 28x28, and inverted. Transparency shows
    white paper.

    Returns:
        float32 (1, 28, 28) in [0, 1], ink 1.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: the file is no image, has 16 bits a pixel, or its border is mostly dark.
    """
    try:
        with Image.open(path) as file:
            gray = _on_white_paper(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: the file was removed; open the folder again") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: must be a PNG image ({error}); save it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _require_light_paper(path, np.asarray(gray))
    side = max(gray.size)
    square = Image.new("L", (side, side), color=255)
    square.paste(gray, ((side - gray.width) // 2, (side - gray.height) // 2))
    small = square.resize(IMAGE_SHAPE[1:], Image.Resampling.BICUBIC)
    ink: Images = np.float32(1) - np.asarray(small, dtype=np.float32) / np.float32(255)
    return ink.reshape(IMAGE_SHAPE)


def _on_white_paper(file: Image.Image) -> Image.Image:
    if file.mode.startswith(("I", "F")):
        raise ValueError(f"must have 8 bits a pixel, and its mode is {file.mode!r}; convert it")
    color = file.convert("RGBA")
    paper = Image.new("RGBA", color.size, "white")
    return Image.alpha_composite(paper, color).convert("L")


def _require_light_paper(path: Path, pixels: NDArray[np.uint8]) -> None:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) < DARK:
        raise ValueError(
            f"{path}: the border's median is {np.median(border):.0f} of 255, and paper must be "
            f"light (>= {DARK}) with dark ink; invert the image"
        )


def open_image_folder(data_dir: str, classes: str, min_images_per_writer: int) -> SplitSource:
    """Open a folder with a folder for each writer, and in it one for each class.

    Class names are the folder names of all writers, sorted. The minimum is compared with a
    writer's images of all classes. Hidden files, and files beside the writers' folders, are
    ignored.

    Raises:
        FileNotFoundError: no folder.
        ValueError: ``data_dir`` is empty, ``classes`` is not ``all``, a writer without images, a
            file where a folder belongs or one that is no PNG.
    """
    root = own_folder(data_dir, "folder", LAYOUT)
    files = {folder.name: class_files(folder) for folder in visible(root) if folder.is_dir()}
    if not files:
        raise ValueError(f"{root}: must hold a folder for each writer ({LAYOUT}), and has none")
    names = tuple(sorted({name for paths in files.values() for name, _ in paths}))
    class_set = whole_class_set(classes, names, accepted=("all",))
    return SplitSource(
        name="folder",
        unit="one writer's folder",
        image_shape=IMAGE_SHAPE,
        class_names=class_set.names,
        image_counts={writer_id: len(paths) for writer_id, paths in files.items()},
        min_images_per_writer=min_images_per_writer,
        read=lambda writer_id: _read_files(files[writer_id], names, root / writer_id),
    )


def class_files(writer_folder: Path) -> Files:
    """Return class and path of each of one writer's images, by class and file name.

    Raises:
        ValueError: no image, a file where a class's folder belongs, or one that is no PNG.
    """
    files = tuple(
        (folder.name, _require_png(path))
        for folder in visible(writer_folder)
        for path in visible(_require_folder(folder))
    )
    if not files:
        raise ValueError(f"{writer_folder}: a writer without images; add some or remove the folder")
    return files


def _read_files(files: Files, class_names: tuple[str, ...], folder: Path) -> LabelledImages:
    return LabelledImages(
        np.stack([read_ink(path) for _, path in files]),
        np.array([class_names.index(name) for name, _ in files], dtype=np.int64),
        origin=str(folder),
    )


def _require_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path}: must be a class's folder ({LAYOUT}); move the file into one")
    return path


def _require_png(path: Path) -> Path:
    if path.suffix.lower() != ".png" or not path.is_file():
        raise ValueError(f"{path}: must be a PNG file ({LAYOUT}); convert it or move it away")
    return path


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder, sorted, without hidden files."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


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
        images = _of_npz(path)
    elif path.suffix in (".h5", ".hdf5"):
        images = _of_hdf5(path)
    else:
        path.stat()  # raises if the file is missing
        raise ValueError(f"{path}: must be {OWN_FORMATS}")
    if not len(images.labels):
        raise ValueError(f"{path}: no image; must hold at least one")
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
    return _read_files(class_files(path), class_names, path)


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
    if images.shape[1:] not in (IMAGE_SHAPE, IMAGE_SHAPE[1:], (PIXELS,)):
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
    """Refuse images with ink and paper swapped: a critic would learn the paper."""
    rows = images.images[:, 0]
    border = np.concatenate([rows[:, 0], rows[:, -1], rows[:, :, 0], rows[:, :, -1]], axis=1)
    if np.median(border) > 0.5:
        raise ValueError(
            f"{path}: paper must be 0 and ink 1, and the borders are mostly ink; invert the images"
        )
