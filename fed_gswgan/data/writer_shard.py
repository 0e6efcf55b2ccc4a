"""What one client holds, checked once: images, labels and the writers they come from.

Shapes: N images, of H = W = 28 pixels and one channel. Ink is 1 and paper is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (1, 28, 28)

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages:
    """Images with their labels, of nobody in particular: the held-out ones, or one reading.

    Args:
        images: float32 (N, 1, 28, 28) in [0, 1], ink 1.
        labels: int64 (N,), from 0.
        origin: what an error names: a file, a key in a file, a set.

    Raises:
        ValueError: no image, a wrong shape or dtype, a pixel outside [0, 1], a negative label.
    """

    images: Images
    labels: Labels
    origin: str = "images"

    def __post_init__(self) -> None:
        check_images(self.images, self.labels, self.origin)

    def __repr__(self) -> str:
        return "LabelledImages(private)"


@dataclass(frozen=True, eq=False, repr=False)
class WriterShard:
    """The images that one client holds. All of it is private, the counts too.

    Args:
        writer_ids: whose images these are, each once.
        images: float32 (N, 1, 28, 28) in [0, 1], ink 1.
        labels: int64 (N,), from 0; that they stay below the number of classes is the source's care.

    Guarantees: neither ``repr`` nor ``str`` shows pixels, labels, counts or writers.

    Raises:
        ValueError: no or a repeated writer, no image, a wrong shape or dtype, a pixel outside
            [0, 1] or not finite, a negative label.
    """

    writer_ids: tuple[str, ...]
    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if not self.writer_ids or len(set(self.writer_ids)) < len(self.writer_ids):
            raise ValueError(f"writer_ids={self.writer_ids}: must name each writer once, and one")
        check_images(self.images, self.labels, f"writer {', '.join(self.writer_ids)}")

    def __repr__(self) -> str:
        return "WriterShard(private)"

    @classmethod
    def merge(cls, shards: Sequence["WriterShard"]) -> "WriterShard":
        """Return one shard with the images of all, in the order given.

        Raises:
            ValueError: no shard, or a writer who occurs in two of them.
        """
        if not shards:
            raise ValueError("shards=(): at least one shard is needed to merge")
        return cls(
            writer_ids=tuple(writer for shard in shards for writer in shard.writer_ids),
            images=np.concatenate([shard.images for shard in shards]),
            labels=np.concatenate([shard.labels for shard in shards]),
        )


def check_images(images: NDArray[Any], labels: NDArray[Any], owner: str) -> None:
    """Require float32 (N, 1, 28, 28) in [0, 1] with int64 (N,) labels from 0, and N > 0.

    Raises:
        ValueError: names the owner, the rule and the value.
    """
    if images.dtype != np.float32 or labels.dtype != np.int64:
        raise ValueError(
            f"{owner}: images must be float32 and labels int64, not {images.dtype}, {labels.dtype}"
        )
    if images.shape[1:] != IMAGE_SHAPE or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{owner}: images must be (N, 1, 28, 28) and labels (N,), "
            f"not {images.shape} and {labels.shape}"
        )
    if not len(labels):
        raise ValueError(f"{owner}: no image; leave out whoever has none")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # also false where a pixel is not a number
        raise ValueError(f"{owner}: pixels must lie in [0, 1], these reach from {low} to {high}")
    if labels.min() < 0:
        raise ValueError(f"{owner}: label {labels.min()} must be >= 0")
