"""A data set of one's own in one file: coloured stripes of 3 x 32 x 32, drawn from a seed.

Usage: ``fed-gswgan run --set dataset=examples.new_dataset:Stripes --set rounds=5``
"""

import numpy as np

from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages
from fed_gswgan.data.registry import DataSettings

CLASSES = ("horizontal", "vertical")
WRITERS, IMAGES, SIDE = 6, 12, 32


class Stripes:
    """Six users, each with a colour of its own; the held-out images are of a seventh."""

    name = "stripes"
    unit = "one user"
    image_shape = (3, SIDE, SIDE)
    class_names = CLASSES
    writer_ids = tuple(f"user-{number}" for number in range(WRITERS))
    held_out_writers = ("user-held-out",)

    def __init__(self, settings: DataSettings) -> None:
        """Take the settings of the run; a real data set reads ``settings.data_dir``."""

    def shard(self, writer_id: str) -> ClientDataset:
        """Return the images of a user."""
        images, labels = _drawn(self.writer_ids.index(writer_id))
        return ClientDataset((writer_id,), images, labels)

    def held_out(self) -> LabelledImages:
        """Return images that no client holds."""
        return LabelledImages(*_drawn(WRITERS))


def _drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images float32 (N, 3, 32, 32) in [0, 1] and labels int64 (N,)."""
    randomness = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % len(CLASSES)
    colour_C11 = randomness.random((3, 1, 1))
    images = []
    for label in labels:
        bright = (np.arange(SIDE) + randomness.integers(8)) % 8 < 4
        stripes_HW = np.broadcast_to(bright[:, None] if label == 0 else bright[None], (SIDE, SIDE))
        images.append(colour_C11 * stripes_HW)
    return np.array(images, dtype=np.float32), labels.astype(np.int64)
