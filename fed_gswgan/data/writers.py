"""Real digits of 1,372 writers, which come with the library: Fed-EMNIST without a download.

``fed_gswgan_data/writers.npz`` has the digits of every writer of Fed-EMNIST, at most 40 each, in 16
greys; ink lies in the central 20 x 20 pixels. It was made from TensorFlow Federated's two HDF5
files (``writers.json`` has the SHA-256 of all three) by

    python -m fed_gswgan.data.writers FOLDER OUTPUT.npz

FOLDER holds FedEMNIST/. The images are NIST Special Database 19's, a work of the US government in
the public domain.

Source: Grother and Hanaoka, NIST Special Database 19, 2016; Cohen et al., EMNIST (arXiv
1702.05373); Caldas et al., LEAF (arXiv 1812.01097), whose split by writer TensorFlow Federated has.
"""

import sys
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.characters import IMAGE_SHAPE, digit_class_set
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.emnist import UNIT, open_fed_emnist
from fed_gswgan.data.held_out import SplitSource, fixed_fraction

FILE = Path(str(files("fed_gswgan_data"))) / "writers.npz"
MOST_IMAGES = 40  # of a writer
DARKEST = 15  # grey in the file; paper is 0
SIDE = 20  # of what is kept of an image
MARGIN = (IMAGE_SHAPE[-1] - SIDE) // 2


def open_writers(classes: str, min_images_per_writer: int) -> SplitSource:
    """Return a ``WriterSource`` of the digits in the library.

    The same writers are held out as of Fed-EMNIST.

    Args:
        classes: ``digits``, or ``all``, which is the same here.
        min_images_per_writer: writers with fewer are left out; 37 have no digit at all.

    Raises:
        ValueError: ``classes`` asks for letters, or fewer than two writers have the minimum.
    """
    class_names = digit_class_set(classes).names
    found = _file()
    ends = np.cumsum(found["counts"])
    rows = {
        str(writer): slice(end - count, end)
        for writer, count, end in zip(found["writers"], found["counts"], ends, strict=True)
    }

    def read(writer: str) -> LabelledImages:
        centres, labels = (found[name][rows[writer]] for name in ("images", "labels"))
        around = ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))
        images = (np.pad(centres[:, None], around) / DARKEST).astype(np.float32)
        return LabelledImages(images, labels.astype(np.int64), f"writers, {writer}")

    return SplitSource(
        name="writers",
        unit=UNIT,
        image_shape=IMAGE_SHAPE,
        class_names=class_names,
        image_counts={writer: of.stop - of.start for writer, of in rows.items()},
        min_images_per_writer=min_images_per_writer,
        read=read,
    )


@lru_cache(maxsize=1)
def _file() -> dict[str, NDArray[Any]]:
    with np.load(FILE, allow_pickle=False) as archive:
        return dict(archive)


def pack(data_dir: str, output: Path) -> None:
    """Write the digits of Fed-EMNIST's files to one small file.

    Of a writer with more, the 40 are kept that a hash of the writer and the image's number decides.

    Args:
        data_dir: holds FedEMNIST/.
        output: ends in .npz; arrays ``writers`` and ``counts``, one for each writer, ``images``
            (N, 20, 20), greys 0 (paper) to 15 (ink), and ``labels`` (N,), by writer.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged.
    """
    source = open_fed_emnist(data_dir, "digits", 0)
    writers = sorted(source.image_counts)
    images, labels = [], []
    for writer in writers:
        found = source.read(writer)
        order = sorted(range(len(found.labels)), key=lambda n: fixed_fraction(f"{writer} {n}"))
        rows = sorted(order[:MOST_IMAGES])
        centre = found.images[rows, 0, MARGIN:-MARGIN, MARGIN:-MARGIN]
        images.append(np.rint(DARKEST * centre).astype(np.uint8))
        labels.append(found.labels[rows].astype(np.uint8))
    np.savez_compressed(
        output,
        writers=np.array(writers),
        counts=np.array([len(of) for of in labels], np.uint8),
        images=np.concatenate(images),
        labels=np.concatenate(labels),
    )


if __name__ == "__main__":
    pack(sys.argv[1], Path(sys.argv[2]))
