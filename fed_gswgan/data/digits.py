"""Digits of scikit-learn, 8x8 pixels, bundled with it: no download is needed.

13 writers filled in forms whose 1,797 digits lie one after the other. 14 blocks of forms are known,
but not the writer of each, so one block is one client. **The held-out images are by the same
writers as the shards**: they show how well a distribution was learned, not how well it generalises
to new writers.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fed_gswgan.data.characters import IMAGE_SHAPE, digit_class_set
from fed_gswgan.data.client_dataset import ClientDataset, Images, LabelledImages
from fed_gswgan.data.held_out import fixed_fraction

BLOCK_STARTS = (0, 130, 256, 386, 516, 646, 776, 915, 1029, 1157, 1287, 1415, 1545, 1667)
BLOCK_IDS = tuple(f"block-{number:02d}" for number in range(1, len(BLOCK_STARTS) + 1))

HELD_OUT_PER_CLASS = 30


class DigitsSource:
    """14 blocks of digits, less 300 held-out images; a ``WriterSource``.

    The minimum is compared with a block's images without the held-out ones (90 to 117).

    Raises:
        ValueError: ``classes`` asks for letters, or no block has the minimum.
    """

    name = "digits"
    unit = "one block of forms"
    image_shape = IMAGE_SHAPE
    ink_on_paper = True
    held_out_writers: tuple[str, ...] = ()

    def __init__(self, classes: str, min_images_per_writer: int) -> None:
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        self.class_names = digit_class_set(classes).names
        table = load_digits()
        self._images, self._labels = table.images, table.target.astype(np.int64)
        self._held_out_rows = held_out_rows(self._labels)
        kept = np.setdiff1d(np.arange(len(self._labels)), self._held_out_rows)
        blocks = np.searchsorted(BLOCK_STARTS, kept, side="right") - 1
        self._rows = {block: kept[blocks == number] for number, block in enumerate(BLOCK_IDS)}
        self.writer_ids = tuple(
            block for block, rows in self._rows.items() if len(rows) >= min_images_per_writer
        )
        if not self.writer_ids:
            most = max(len(rows) for rows in self._rows.values())
            raise ValueError(
                f"min-images-per-writer={min_images_per_writer} leaves no block of the digits; "
                f"the largest has {most}"
            )

    def shard(self, writer_id: str) -> ClientDataset:
        """Return the images of one block that are not held out.

        Raises:
            ValueError: no such block, or one below the minimum.
        """
        if writer_id not in self.writer_ids:
            raise ValueError(f"digits: block {writer_id!r} must be one of {self.writer_ids}")
        rows = self._rows[writer_id]
        return ClientDataset((writer_id,), enlarge(self._images[rows]), self._labels[rows])

    def held_out(self) -> LabelledImages:
        """Return the 300 held-out images, 30 of each class."""
        rows = self._held_out_rows
        return LabelledImages(enlarge(self._images[rows]), self._labels[rows], "digits, held out")


def held_out_rows(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the 300 rows that are in no shard: the same ones for every run and seed.

    Each class's rows are cut into 30 stretches, and one row is taken from each, so every block
    contributes some.
    """
    rows = [
        stretch[int(fixed_fraction(f"digits {label} {number}") * len(stretch))]
        for label in range(10)
        for number, stretch in enumerate(
            np.array_split(np.flatnonzero(labels == label), HELD_OUT_PER_CLASS)
        )
    ]
    return np.sort(np.array(rows, dtype=np.int64))


def enlarge(images_N88: NDArray[np.float64]) -> Images:
    """Bring 8x8 counts of ink to 28x28 with MNIST's margin: a glyph of 20x20 in the middle.

    Bicubic, on a canvas with two rows of paper around (12x12 to 30x30, and a row cut off at each
    side), so that strokes which touch the edge of the 8x8 fade out rather than break off.

    Args:
        images_N88: 0 (paper) to 16 (ink).

    Returns:
        float32 (N, 1, 28, 28) in [0, 1], ink 1.
    """
    canvases = np.pad(images_N88 / 16, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    enlarged = [
        np.asarray(Image.fromarray(canvas).resize((30, 30), Image.Resampling.BICUBIC))
        for canvas in canvases
    ]
    # Bicubic overshoots beside sharp edges.
    glyphs: Images = np.stack(enlarged)[:, 1:-1, 1:-1].clip(0, 1)
    return glyphs.reshape(-1, *IMAGE_SHAPE)
