"""Toy data set of two colours in images of 3x32x32, which is not the shape of a character."""

import numpy as np

from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages


class ColourSource:
    """Four writers of red (0) and blue (1) images with some noise; a ``WriterSource``."""

    name = "colours"
    unit = "one painter"
    image_shape = (3, 32, 32)
    class_names = ("red", "blue")
    writer_ids = ("a", "b", "c", "d")
    held_out_writers: tuple[str, ...] = ()

    def shard(self, writer_id: str) -> ClientDataset:
        """Return six images of each colour."""
        drawn = _drawn(6, self.writer_ids.index(writer_id))
        return ClientDataset((writer_id,), drawn.images, drawn.labels)

    def held_out(self) -> LabelledImages:
        """Return 20 images of each colour."""
        return _drawn(20, seed=99)


def _drawn(of_each: int, seed: int) -> LabelledImages:
    labels = np.arange(2 * of_each, dtype=np.int64) % 2
    images = 0.2 * np.random.default_rng(seed).random((2 * of_each, 3, 32, 32), dtype=np.float32)
    images[np.arange(len(labels)), 2 * labels] += 0.8
    return LabelledImages(images, labels)
