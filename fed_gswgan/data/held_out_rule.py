"""Which writers nobody trains on: one rule for every source that holds whole persons out.

A writer is held out by a hash of the id alone. So the choice depends neither on a run's seed nor
on the other settings: whoever is held out with one minimum or class set is no client with another,
and the same NIST writer is held out of Fed-EMNIST in all three of its packagings.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class WriterSplit:
    """The writers who may be clients, and those held out; both sorted by id."""

    clients: tuple[str, ...]
    held_out: tuple[str, ...]


def split_writers(
    image_counts: Mapping[str, int], min_images_per_writer: int, source: str
) -> WriterSplit:
    """Hold out about a tenth of the writers who have enough images.

    Writers below the minimum are used for nothing, neither training nor evaluation. Of the others
    those are held out whose ``fixed_fraction`` is below 0.1; in a small set at least the one where
    it is lowest, and never more than half (then too the lowest ones, which may differ from those of
    another minimum).

    Args:
        image_counts: how many images of the chosen classes each writer has, held-out ones included.
        min_images_per_writer: a writer with fewer is left out.
        source: what an error names.

    Raises:
        ValueError: fewer than two writers remain, so that none could be held out.
    """
    writers = [writer for writer, count in image_counts.items() if count >= min_images_per_writer]
    if len(writers) < 2:
        raise ValueError(
            f"{source}: {len(writers)} of {len(image_counts)} writers have at least "
            f"min-images-per-writer={min_images_per_writer} images of the chosen classes, and two "
            "are needed (one is held out); lower the minimum or bring more writers"
        )
    ranked = sorted(writers, key=lambda writer: (fixed_fraction(_key(writer)), writer))
    below = sum(fixed_fraction(_key(writer)) < HELD_OUT_FRACTION for writer in writers)
    held_out_count = min(max(below, 1), len(writers) // 2)
    return WriterSplit(
        clients=tuple(sorted(ranked[held_out_count:])),
        held_out=tuple(sorted(ranked[:held_out_count])),
    )


def fixed_fraction(key: str) -> float:
    """Return a number in [0, 1) that depends on the key alone, on every machine and version."""
    digest = hashlib.blake2b(key.encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48  # exact in a float: 1.0 cannot come out


def _key(writer_id: str) -> str:
    return f"held-out writer {writer_id}"
