"""A source seen through two settings: a fault in some writers' images, and a choice of writers.

Both serve the debugging scenario: a device with a faulty camera or application swaps ink and paper,
and a generator trained on a part of the writers shows what is wrong with that part.

Source: Augenstein et al., arXiv 1911.06679, section 6: federated debugging.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_gswgan.data.held_out_rule import fixed_fraction
from fed_gswgan.data.writer_shard import WriterShard


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AlteredSource:
    """A ``WriterSource`` like another one; held-out images are never altered.

    Args:
        source: the other one.
        swapped_share: of the writers, in [0, 1], whose ink and paper are swapped; who they are
            follows from their ids alone.
        writer_ids: the clients' writers, in the order of the other source.
    """

    source: Any
    swapped_share: float
    writer_ids: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        """Return what the other source has."""
        return getattr(self.source, name)

    def shard(self, writer_id: str) -> WriterShard:
        """Read one writer's images, swapped if the writer is one of those."""
        if writer_id not in self.writer_ids:
            raise ValueError(f"{self.source.name}: writer {writer_id!r} is none of the chosen ones")
        shard: WriterShard = self.source.shard(writer_id)
        if not is_swapped(writer_id, self.swapped_share):
            return shard
        return WriterShard(shard.writer_ids, 1 - shard.images, shard.labels)


def is_swapped(writer_id: str, swapped_share: float) -> bool:
    """Tell whether a writer's ink and paper are swapped."""
    return fixed_fraction(f"swapped writer {writer_id}") < swapped_share


def chosen_writers(all_ids: tuple[str, ...], writers_file: str) -> tuple[str, ...]:
    """Return the writers that a file names, an id a line; all of them without a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it names nobody, or somebody who is no client's writer.
    """
    if not writers_file:
        return all_ids
    named = Path(writers_file).read_text().split()
    if unknown := sorted(set(named) - set(all_ids)):
        raise ValueError(
            f"writers-file={writers_file}: {unknown[0]!r} has no shard in the data set"
        )
    chosen = tuple(writer for writer in all_ids if writer in set(named))
    if not chosen:
        raise ValueError(f"writers-file={writers_file} must name at least one writer")
    return chosen
