"""Handwritten characters: image shape, polarity, and the classes that a run keeps.

EMNIST numbers its 62 characters 0-9, then A-Z as 10-35, then a-z as 36-61.
"""

import string
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.client_dataset import Images, LabelledImages

IMAGE_SHAPE = (1, 28, 28)
PIXELS = 28 * 28
# Shapes in which one image is stored.
STORED_SHAPES = (IMAGE_SHAPE, (*IMAGE_SHAPE[1:], 1), IMAGE_SHAPE[1:], (PIXELS,))

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
        if np.issubdtype(labels.dtype, np.floating) and (labels == np.rint(labels)).all():
            labels = labels.astype(np.int64)
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
        """Return the number of images that belong to the set."""
        return int((self.relabel(labels, origin) != DROPPED).sum())

    def keep(self, images: Images, labels: NDArray[Any], origin: str) -> LabelledImages:
        """Drop the images of other classes and give the rest their new labels.

        Raises:
            ValueError: not one label an image, a label that the data set does not have, or no
                image left.
        """
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"{origin}: {len(images)} images need a label each, not {labels.shape}"
            )
        new_labels = self.relabel(labels, origin)
        kept = new_labels != DROPPED
        return LabelledImages(images[kept], new_labels[kept], origin)


def emnist_class_set(classes: str) -> ClassSet:
    """Return the set of that name for a data set of EMNIST's 62 characters.

    Args:
        classes: ``digits`` (10), ``letters`` (52), ``all`` (62) or ``merged`` (47).
    """
    merged = [
        character.upper() if classes == "merged" and character in MERGED_LETTERS else character
        for character in CHARACTERS
    ]
    by_name = dict(digits=DIGITS, letters=LETTERS, all=CHARACTERS, merged=CHARACTERS)
    names = tuple(name for name in by_name[classes] if name in merged)
    position = {name: label for label, name in enumerate(names)}
    return ClassSet(names, tuple(position.get(character, DROPPED) for character in merged))


def whole_class_set(classes: str, names: tuple[str, ...], *, accepted: tuple[str, ...]) -> ClassSet:
    """Return all classes of a data set that has no letters to choose from.

    Raises:
        ValueError: ``classes`` asks for a choice that this data set does not offer.
    """
    if classes not in accepted:
        raise ValueError(
            f"classes={classes!r} must be one of {', '.join(accepted)} for a data set "
            "without EMNIST's letters; choose fed-emnist, leaf-femnist or flwr-femnist for letters"
        )
    return ClassSet(names, tuple(range(len(names))))


def digit_class_set(classes: str) -> ClassSet:
    """Return the ten digits, for a data set of digits only.

    Raises:
        ValueError: ``classes`` is ``letters`` or ``merged``.
    """
    return whole_class_set(classes, DIGITS, accepted=("all", "digits"))


def border_greys(pixels_NHW: NDArray[Any]) -> NDArray[Any]:
    """Return the median of each image's outermost pixels (N,): the grey of its paper."""
    border = np.ones(pixels_NHW.shape[1:], bool)
    border[1:-1, 1:-1] = False
    greys: NDArray[Any] = np.median(pixels_NHW[:, border], axis=1)
    return greys


def invert_paper(pixels: NDArray[Any], origin: str) -> Images:
    """Turn white paper (1) with dark ink (0) into paper 0 and ink 1.

    Args:
        pixels: numbers in [0, 1], or bytes of which 255 is paper, shape (N, 28, 28), (N, 784) or
            with a channel, (N, 28, 28, 1) or (N, 1, 28, 28).
        origin: what an error names.

    Returns:
        float32 (N, 1, 28, 28) in [0, 1].

    Raises:
        ValueError: another shape, or a pixel outside [0, 1] or not finite.
    """
    if pixels.shape[1:] not in STORED_SHAPES:
        raise ValueError(f"{origin}: must be (N, 28, 28) or (N, 784), not {pixels.shape}")
    if pixels.dtype == np.uint8:
        pixels = pixels / np.float32(255)
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"{origin}: pixels must be numbers, not {pixels.dtype}")
    low, high = pixels.min(initial=1), pixels.max(initial=0)
    if not (low >= 0 and high <= 1):  # also false where a pixel is not a number
        raise ValueError(f"{origin}: pixels must lie in [0, 1], these reach from {low} to {high}")
    return (1 - pixels.astype(np.float32)).reshape(-1, *IMAGE_SHAPE)
