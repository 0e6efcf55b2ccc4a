"""Writers that are held out of training, by one rule for every data set of whole writers.

A writer is held out by a hash of the id alone. The choice depends neither on the seed nor on the
other settings: a writer held out with one minimum or class set is no client with another, and the
same NIST writer is held out of Fed-EMNIST in all three of its packagings.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages
from fed_gswgan.progress import steps

HELD_OUT_FRACTION = 0.1


def fixed_fraction(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone, on every machine and version."""
    digest = hashlib.blake2b(key.encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48  # exact in a float: 1.0 cannot come out


@dataclass(frozen=True)
class WriterSplit:
    """The writers who may be clients, and those held out; both sorted by id."""

    clients: tuple[str, ...]
    held_out: tuple[str, ...]


def split_writers(
    image_counts: Mapping[str, int], min_images_per_writer: int, source: str
) -> WriterSplit:
    """Hold out about a tenth of the writers who have enough images.

    Writers below the minimum are used neither for training nor for evaluation. Of the others,
    those whose ``fixed_fraction`` is below 0.1 are held out; in a small set at least the one where
    it is lowest, and never more than half (again the lowest ones, which may then differ between
    two minimums).

    Args:
        image_counts: images of the chosen classes of each writer, held-out ones included.
        min_images_per_writer: a writer with fewer is left out.
        source: what an error names.

    Raises:
        ValueError: fewer than two writers remain, so that none could be held out.
    """
    fractions = {
        writer: fixed_fraction(f"held-out writer {writer}")
        for writer, count in image_counts.items()
        if count >= min_images_per_writer
    }
    if len(fractions) < 2:
        raise ValueError(
            f"{source}: {len(fractions)} of {len(image_counts)} writers have at least "
            f"min-images-per-writer={min_images_per_writer} images of the chosen classes, and two "
            "are needed (one is held out); lower the minimum or bring more writers"
        )
    ranked = sorted(fractions, key=lambda writer: (fractions[writer], writer))
    below = sum(fraction < HELD_OUT_FRACTION for fraction in fractions.values())
    held_out_count = min(max(below, 1), len(ranked) // 2)
    return WriterSplit(
        clients=tuple(sorted(ranked[held_out_count:])),
        held_out=tuple(sorted(ranked[:held_out_count])),
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SplitSource:
    """Writers read one at a time, about a tenth of them held out; a ``WriterSource``.

    Args:
        name: the data set.
        unit: what one user is.
        image_shape: (C, H, W) of every image.
        class_names: in the order of the labels.
        image_counts: images of the chosen classes of every writer, the number that
            ``min_images_per_writer`` is compared with.
        read: returns all images of one writer in the chosen classes.
        notes: for the user, on what was found.
        ink_on_paper: whether paper is 0 and ink 1 on every image.

    Raises:
        ValueError: fewer than two writers have the minimum.
    """

    name: str
    unit: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    image_counts: Mapping[str, int]
    min_images_per_writer: int
    read: Callable[[str], LabelledImages]
    notes: tuple[str, ...] = ()
    ink_on_paper: bool = True

    def __post_init__(self) -> None:
        _ = self.split  # an impossible minimum is an error of opening, not of reading

    @cached_property
    def split(self) -> WriterSplit:
        """The writers who may be clients, and those held out."""
        return split_writers(self.image_counts, self.min_images_per_writer, self.name)

    @property
    def writer_ids(self) -> tuple[str, ...]:
        """The clients' writers, sorted."""
        return self.split.clients

    @property
    def held_out_writers(self) -> tuple[str, ...]:
        """The writers of ``held_out``, sorted."""
        return self.split.held_out

    def shard(self, writer_id: str) -> ClientDataset:
        """Read one writer's images.

        Raises:
            ValueError: the writer is held out, below the minimum or unknown; or the data is wrong.
        """
        if writer_id not in self.split.clients:
            state = (
                "held out" if writer_id in self.split.held_out else "unknown or below the minimum"
            )
            raise ValueError(f"{self.name}: writer {writer_id!r} has no shard, being {state}")
        everything = self.read(writer_id)
        return ClientDataset((writer_id,), everything.images, everything.labels)

    def held_out(self) -> LabelledImages:
        """Read the images of all held-out writers, by writer."""
        writers = steps("reading held-out images", self.held_out_writers)
        parts = [self.read(writer_id) for writer_id in writers]
        if not sum(len(part.labels) for part in parts):
            raise ValueError(
                f"{self.name}: the held-out writers have no image of these classes; raise "
                f"min-images-per-writer={self.min_images_per_writer}, or choose other classes"
            )
        return LabelledImages(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.labels for part in parts]),
            origin=f"{self.name}, held-out writers",
        )

    def __repr__(self) -> str:
        return f"SplitSource({self.name!r})"
