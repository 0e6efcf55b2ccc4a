"""From rows as the formats give them to checked images: polarity, shape, classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.class_sets import DROPPED, ClassSet
from fed_gswgan.data.writer_shard import IMAGE_SHAPE, Images, LabelledImages


def invert_paper(pixels: NDArray[Any], origin: str) -> Images:
    """Turn white paper (1) with dark ink (0) into paper 0 and ink 1.

    Args:
        pixels: numbers in [0, 1], shape (N, 28, 28) or (N, 784).
        origin: what an error names.

    Returns:
        float32 (N, 1, 28, 28) in [0, 1].

    Raises:
        ValueError: another shape, or a pixel outside [0, 1] or not finite.
    """
    if pixels.shape[1:] not in ((28, 28), (784,)):
        raise ValueError(f"{origin}: must be (N, 28, 28) or (N, 784), not {pixels.shape}")
    if not np.issubdtype(pixels.dtype, np.number):
        raise ValueError(f"{origin}: pixels must be numbers, not {pixels.dtype}")
    low, high = pixels.min(initial=1), pixels.max(initial=0)
    if not (low >= 0 and high <= 1):  # also false where a pixel is not a number
        raise ValueError(f"{origin}: pixels must lie in [0, 1], these reach from {low} to {high}")
    return (1 - pixels.astype(np.float32)).reshape(-1, *IMAGE_SHAPE)


def keep_classes(
    images: Images, labels: NDArray[Any], class_set: ClassSet, origin: str
) -> LabelledImages:
    """Drop the images of other classes and give the rest their new labels.

    Raises:
        ValueError: as many labels as images are needed, and none the data set does not have.
    """
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{origin}: {len(images)} images need a label each, not {labels.shape}")
    new_labels = class_set.relabel(labels, origin)
    kept = new_labels != DROPPED
    return LabelledImages(images[kept], new_labels[kept], origin)
