"""The check of all images before work starts: one set of rules, whatever file they came from.

Range, shape and labels are checked where images are read (``check_images``). Here follow the rules
that need all images of a writer, or of all writers. Where one is broken, a file is surely wrong.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.characters import border_greys
from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages, WriterSource
from fed_gswgan.progress import steps

HELD_OUT = "held-out images"  # stand in a fingerprint as a writer does
BLANK = 0.1  # range of a blank image's pixels, at most
MOST_REPEATED = 0.1  # of a writer's images
MOST_NAMED = 3  # held-out writers in a line
SOURCES_WITHOUT_FILES = ("drawn", "devices")

Counts = NDArray[np.int64]


@dataclass(frozen=True, repr=False, kw_only=True)
class CheckedData:
    """What the check has seen. All of it is private: simulations and owners only.

    Attributes:
        class_names: in the order of the labels.
        digests: of the images and labels of each writer who is used, by id, and of the held-out
            images; empty where the images come from no file.
        counts: images of each writer, in the order of ``digests``, and class, (writers, L).
        blank: images on which nothing is drawn.
        held_out_writers: whose images are in no shard.
        notes: what was skipped.
    """

    class_names: tuple[str, ...]
    digests: dict[str, str]
    counts: Counts
    blank: int
    held_out_writers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of all of it, which a run keeps; empty where the images come from no file."""
        if not self.digests:
            return ""
        lines = [*self.class_names, *(f"{digest} {of}" for of, digest in self.digests.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def lines(self) -> list[str]:
        """Say in a line what there is, in further ones what was held out or skipped."""
        if not self.digests:
            return []
        people = [writer for writer in self.digests if writer != HELD_OUT]
        found = [f"data: {len(people)} writers, {len(self.class_names)} classes"]
        if held_out := self.held_out_writers:
            few = len(held_out) <= MOST_NAMED
            named = ", ".join(map(repr, held_out)) if few else f"{len(held_out)} of the writers"
            found.append(f"held out for evaluation: {named}")
        return [*found, *self.notes]


def check_source(source: WriterSource, writers: Sequence[str]) -> CheckedData:
    """Read all images of some writers and the held-out ones, and check them.

    Args:
        source: of images; those that are drawn, or on devices, are not read here.
        writers: some of the source's.

    Raises:
        OSError, ValueError: a file cannot be read, or is surely wrong; names file, rule and value.
    """
    count, blank, digests, rows = len(source.class_names), 0, {}, []
    check = Check(source.class_names, bool(getattr(source, "ink_on_paper", False)))
    read = getattr(source, "read", source.shard)  # with the place of an image, if it is known
    apart = source.held_out_writers if hasattr(source, "read") else (HELD_OUT,)
    used = [*writers, *apart] if source.name not in SOURCES_WITHOUT_FILES else []
    for writer in steps("checking images", used):
        images = source.held_out() if writer == HELD_OUT else read(writer)
        origin = getattr(images, "origin", f"{source.name}, writer {writer!r}")
        digests[writer] = check.add(images, origin, one_writer=writer != HELD_OUT)
        rows.append(np.bincount(images.labels, minlength=count))
        blank += int(is_blank(images.images).sum())
    return CheckedData(
        class_names=tuple(source.class_names),
        digests=digests,
        counts=np.array(rows, np.int64).reshape(len(rows), count),
        blank=blank,
        held_out_writers=source.held_out_writers,
        notes=tuple(getattr(source, "notes", ())),
    )


class Check:
    """The rules for one writer after another.

    Args:
        class_names: L of them; every label must be below L.
        ink_on_paper: whether paper must be 0 and ink 1, as on images of characters; otherwise
            neither polarity nor blank or repeated images are wrong.
    """

    def __init__(self, class_names: Sequence[str], ink_on_paper: bool) -> None:
        self._class_names, self._ink_on_paper = class_names, ink_on_paper
        self._owners: dict[bytes, str] = {}

    def add(
        self, images: ClientDataset | LabelledImages, origin: str, one_writer: bool = True
    ) -> str:
        """Check images, and return a digest of them and of their labels.

        Args:
            images: of one writer, or of several.
            origin: what an error names.
            one_writer: whether the rules for a writer hold.

        Raises:
            ValueError: a label out of range; borders of ink; a class of blank images; images that
                occur more than once, or that another writer has; names rule and value.
        """
        pixels, labels = images.images, images.labels
        if labels.max(initial=0) >= (count := len(self._class_names)):
            raise ValueError(f"{origin}: label {labels.max()} must be 0 .. {count - 1}")
        if self._ink_on_paper:
            _require_paper(pixels, origin)
            if one_writer:
                self._require_ink(pixels, labels, origin)
                self._require_new(pixels, labels, origin)
        whole = hashlib.blake2b(pixels.tobytes(), digest_size=8)
        whole.update(labels.tobytes())
        return whole.hexdigest()

    def _require_ink(self, pixels: Any, labels: Any, origin: str) -> None:
        blank = is_blank(pixels)
        for label in np.unique(labels[blank]):
            of_class = labels == label
            if blank[of_class].all():
                raise ValueError(
                    f"{origin}: all {of_class.sum()} images of class {self._class_names[label]!r} "
                    "are blank and must show ink (white ink on transparent paper is none); draw "
                    "it dark, or remove them"
                )

    def _require_new(self, pixels: Any, labels: Any, origin: str) -> None:
        digests = [
            hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest()
            for image, label in zip(pixels, labels, strict=True)
        ]
        distinct = set(digests)
        if (repeated := len(digests) - len(distinct)) > max(1, MOST_REPEATED * len(digests)):
            raise ValueError(
                f"{origin}: {repeated} of {len(digests)} images occur twice, to the last pixel and "
                "with their label; remove the copies"
            )
        others = [self._owners[digest] for digest in distinct if digest in self._owners]
        if 2 * len(others) > len(distinct):
            raise ValueError(
                f"{origin}: {len(others)} of {len(distinct)} images are also those of {others[0]}; "
                "a writer must occur once; remove the copy"
            )
        self._owners |= dict.fromkeys(distinct, origin)


def is_blank(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell of each image (N, C, H, W) whether nothing is drawn on it."""
    blank: NDArray[np.bool_] = np.ptp(pixels, axis=(1, 2, 3)) < BLANK
    return blank


def _require_paper(pixels: Any, origin: str) -> None:
    inked = np.flatnonzero(border_greys(pixels[:, 0]) > 0.5)
    if inked.size:
        raise ValueError(
            f"{origin}: paper must be 0 and ink 1, and the border of {inked.size} of "
            f"{len(pixels)} images is ink, first of image {inked[0]}; invert them"
        )
