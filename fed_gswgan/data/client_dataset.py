"""Data of one client, what a data set states of its images, and what it can be asked.

Shapes: N images, C channels, H and W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class DataSpec:
    """What networks are built from.

    Attributes:
        image_shape: (C, H, W) of every image.
        num_classes: L.
        class_names: of the classes, for a public prior; empty: unknown.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...] = ()


def image_shape_of(images_NCHW: Any) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of the images in an array or tensor (N, C, H, W)."""
    _, channels, height, width = images_NCHW.shape
    return channels, height, width


@dataclass(frozen=True, eq=False, repr=False)
class LabelledImages:
    """Images with their labels, of no client: the held-out ones, or one reading.

    Args:
        images: float32 (N, C, H, W) in [0, 1], ink 1.
        labels: int64 (N,), from 0.
        origin: what an error names: a file, a key in a file, a set.

    Raises:
        ValueError: a wrong shape or dtype, a pixel outside [0, 1], a negative label.
    """

    images: Images
    labels: Labels
    origin: str = "images"

    def __post_init__(self) -> None:
        check_images(self.images, self.labels, self.origin)

    def __repr__(self) -> str:
        return "LabelledImages(private)"


@dataclass(frozen=True, eq=False, repr=False)
class ClientDataset:
    """Images held by one client, or none. All of it is private, the counts too.

    Args:
        writer_ids: the writers of the images, each once.
        images: float32 (N, C, H, W) in [0, 1], ink 1.
        labels: int64 (N,), from 0; the source keeps them below the number of classes.

    Guarantees: neither ``repr`` nor ``str`` shows pixels, labels, counts or writers.

    Raises:
        ValueError: no or a repeated writer, a wrong shape or dtype, a pixel outside
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
        return "ClientDataset(private)"

    @classmethod
    def merge(cls, shards: Sequence["ClientDataset"]) -> "ClientDataset":
        """Return one data set with the images of all, in the order given.

        Raises:
            ValueError: no shard, images of two shapes, or a writer who occurs in two shards.
        """
        if not shards:
            raise ValueError("shards=(): at least one shard is needed to merge")
        return cls(
            writer_ids=tuple(writer for shard in shards for writer in shard.writer_ids),
            images=np.concatenate([shard.images for shard in shards]),
            labels=np.concatenate([shard.labels for shard in shards]),
        )


def check_images(images: NDArray[Any], labels: NDArray[Any], owner: str) -> None:
    """Require float32 (N, C, H, W) in [0, 1] with int64 (N,) labels from 0; N may be 0.

    Raises:
        ValueError: names the owner, the rule and the value.
    """
    if images.dtype != np.float32 or labels.dtype != np.int64:
        raise ValueError(
            f"{owner}: images must be float32 and labels int64, not {images.dtype}, {labels.dtype}"
        )
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{owner}: images must be (N, C, H, W) and labels (N,), "
            f"not {images.shape} and {labels.shape}"
        )
    low, high = images.min(initial=0), images.max(initial=0)
    if not (low >= 0 and high <= 1):  # also false where a pixel is not a number
        raise ValueError(f"{owner}: pixels must lie in [0, 1], these reach from {low} to {high}")
    if labels.min(initial=0) < 0:
        raise ValueError(f"{owner}: label {labels.min()} must be >= 0")


class WriterSource(Protocol):
    """A data set by writer, some of its images held out of every shard.

    Guarantees: no image of ``held_out`` is in any shard, whatever the seed. Where
    ``held_out_writers`` is not empty, none of them is in ``writer_ids``.
    """

    @property
    def name(self) -> str:
        """The data set, as in ``DataConfig.dataset``."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, in the order of the labels."""

    @property
    def unit(self) -> str:
        """What one user is, for statements of privacy."""

    @property
    def writer_ids(self) -> tuple[str, ...]:
        """The clients' writers: in a fixed order, none below the minimum, none held out."""

    @property
    def held_out_writers(self) -> tuple[str, ...]:
        """Writers of the held-out images; empty where they are the shards' writers."""

    def shard(self, writer_id: str) -> ClientDataset:
        """Read the images of one of ``writer_ids``."""

    def held_out(self) -> LabelledImages:
        """Read the images for evaluation."""


def spec_of(source: WriterSource) -> DataSpec:
    """Return what a data set states of its images."""
    return DataSpec(source.image_shape, len(source.class_names), tuple(source.class_names))
