"""A source that holds out whole persons: nobody's images are both trained on and evaluated with.

Each file format says how many images a writer has and how to read them; the rest is alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fed_gswgan.data.held_out_rule import WriterSplit, split_writers
from fed_gswgan.data.writer_shard import LabelledImages, WriterShard


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PeopleSource:
    """Writers read one at a time, about a tenth of them held out; a ``WriterSource``.

    Args:
        name: the data set.
        unit: what one user is.
        class_names: in the order of the labels.
        image_counts: images of the chosen classes of every writer, the number that
            ``min_images_per_writer`` is compared with.
        read: returns all images of one writer in the chosen classes.
    """

    name: str
    unit: str
    class_names: tuple[str, ...]
    image_counts: Mapping[str, int]
    min_images_per_writer: int
    read: Callable[[str], LabelledImages]

    def __post_init__(self) -> None:
        _ = self.split  # an impossible minimum is an error of opening, not of reading

    @cached_property
    def split(self) -> WriterSplit:
        """Who may be a client, and who is held out."""
        return split_writers(self.image_counts, self.min_images_per_writer, self.name)

    @property
    def writer_ids(self) -> tuple[str, ...]:
        """The clients' writers, sorted."""
        return self.split.clients

    @property
    def held_out_writers(self) -> tuple[str, ...]:
        """The writers of ``held_out``, sorted."""
        return self.split.held_out

    def shard(self, writer_id: str) -> WriterShard:
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
        return WriterShard((writer_id,), everything.images, everything.labels)

    def held_out(self) -> LabelledImages:
        """Read the images of all held-out writers, by writer."""
        parts = [self.read(writer_id) for writer_id in self.held_out_writers]
        return LabelledImages(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.labels for part in parts]),
            origin=f"{self.name}, held-out writers",
        )

    def __repr__(self) -> str:
        return f"PeopleSource({self.name!r})"
