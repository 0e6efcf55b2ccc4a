"""People's own images: ``PATH/WRITER/CLASS/*.png``, dark ink on light paper, of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_gswgan.data.class_sets import whole_class_set
from fed_gswgan.data.data_location import own_folder
from fed_gswgan.data.image_file import read_ink
from fed_gswgan.data.people_source import PeopleSource
from fed_gswgan.data.writer_shard import LabelledImages

LAYOUT = "WRITER/CLASS/*.png"

Files = tuple[tuple[str, Path], ...]  # the class and the path of each image


def open_image_folder(data_dir: str, classes: str, min_images_per_writer: int) -> PeopleSource:
    """Open a folder with a folder for each writer and in it one for each class.

    Class names are all folder names found with any writer, sorted. The minimum is compared with a
    writer's images of all classes. Hidden files, and files beside the writers' folders, are not
    looked at.

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
    return PeopleSource(
        name="folder",
        unit="one writer's folder",
        class_names=class_set.names,
        image_counts={writer_id: len(paths) for writer_id, paths in files.items()},
        min_images_per_writer=min_images_per_writer,
        read=ImageFolder(root, files, names).read,
    )


@dataclass(frozen=True, repr=False)
class ImageFolder:
    """The paths of each writer's images, read when asked for."""

    root: Path
    files: dict[str, Files]
    class_names: tuple[str, ...]

    def read(self, writer_id: str) -> LabelledImages:
        """Return all images of one writer, by class and file name."""
        paths = self.files[writer_id]
        return LabelledImages(
            np.stack([read_ink(path) for _, path in paths]),
            np.array([self.class_names.index(name) for name, _ in paths], dtype=np.int64),
            origin=str(self.root / writer_id),
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


def _require_folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path}: must be a class's folder ({LAYOUT}); move the file into one")
    return path


def _require_png(path: Path) -> Path:
    if path.suffix.lower() != ".png" or not path.is_file():
        raise ValueError(f"{path}: must be a PNG file ({LAYOUT}); convert it or move it away")
    return path


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted, hidden files left out."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
