"""Which classes a run keeps, and what their labels become.

EMNIST numbers its 62 characters 0-9, then A-Z as 10-35, then a-z as 36-61.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DROPPED = -1

DIGITS = tuple(string.digits)
LETTERS = tuple(string.ascii_uppercase + string.ascii_lowercase)
CHARACTERS = DIGITS + LETTERS

# Lower-case letters that a form does not tell from their upper case.
# Source: EMNIST (arXiv 1702.05373), section II, the ByMerge data set.
MERGED_LETTERS = frozenset("cijklmopsuvwxyz")


@dataclass(frozen=True)
class ClassSet:
    """The classes of a run.

    Args:
        names: the name of each class, in the order of the new labels.
        new_labels: for each label of the data set its new label, or ``DROPPED``.
    """

    names: tuple[str, ...]
    new_labels: tuple[int, ...]

    def relabel(self, labels: NDArray[Any], origin: str) -> NDArray[np.int64]:
        """Return the new label of each image, ``DROPPED`` where its class is not of this set.

        Raises:
            ValueError: a label that the data set does not have; the message names ``origin``.
        """
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{origin}: labels must be whole numbers of shape (N,), "
                f"not {labels.dtype} {labels.shape}"
            )
        wrong = labels[(labels < 0) | (labels >= len(self.new_labels))]
        if wrong.size:
            raise ValueError(
                f"{origin}: label {wrong[0]} must be 0..{len(self.new_labels) - 1}; "
                "correct the file, or choose the data set it belongs to"
            )
        new_labels: NDArray[np.int64] = np.array(self.new_labels, dtype=np.int64)[labels]
        return new_labels

    def count_kept(self, labels: NDArray[Any], origin: str) -> int:
        """Return how many of these images belong to the set."""
        return int((self.relabel(labels, origin) != DROPPED).sum())


def emnist_class_set(classes: str) -> ClassSet:
    """Return the set of that name for a data set of EMNIST's 62 characters.

    Args:
        classes: ``digits`` (10), ``letters`` (52), ``all`` (62) or ``merged`` (47).
    """
    names = dict(digits=DIGITS, letters=LETTERS, all=CHARACTERS, merged=tuple(_merged_names()))[
        classes
    ]
    position = {name: label for label, name in enumerate(names)}
    merges = classes == "merged"
    return ClassSet(
        names,
        tuple(
            position.get(_merge(character) if merges else character, DROPPED)
            for character in CHARACTERS
        ),
    )


def whole_class_set(classes: str, names: tuple[str, ...], *, accepted: tuple[str, ...]) -> ClassSet:
    """Return all classes of a data set that has no letters to choose from.

    Raises:
        ValueError: ``classes`` asks for a choice that this data set cannot give.
    """
    if classes not in accepted:
        raise ValueError(
            f"classes={classes!r} must be one of {', '.join(accepted)} for a data set "
            "without EMNIST's letters; choose fed-emnist, leaf-femnist or flwr-femnist for letters"
        )
    return ClassSet(names, tuple(range(len(names))))


def digit_class_set(classes: str) -> ClassSet:
    """Return the ten digits, for a data set which has nothing else.

    Raises:
        ValueError: ``classes`` is ``letters`` or ``merged``.
    """
    return whole_class_set(classes, DIGITS, accepted=("all", "digits"))


def _merge(character: str) -> str:
    return character.upper() if character in MERGED_LETTERS else character


def _merged_names() -> Iterator[str]:
    return (character for character in CHARACTERS if _merge(character) == character)
