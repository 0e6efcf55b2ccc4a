"""Fit of a generator to noisy fields and to a weighted pool of public images.

Both losses are functions of the samples' features, through which gradients reach the generator.

Shapes: L classes, S samples of a class, M pool images of a class, P points of a class, D features.
"""

from collections.abc import Sequence

from torch import Tensor

from fed_gswgan.critics.cramer import Field, distances, unit_mean


def field_loss(features_LSD: Tensor, fields: Sequence[Field]) -> Tensor:
    """Return how far samples are from the fields: the mean over points, summed over classes.

    At a point the samples' mean direction should be the field. The product of the misses of two
    independent halves of the samples has the square of the true miss as its mean: that of one half
    with itself would add the variance of few samples.

    Args:
        features_LSD: of samples, S even.
        fields: of all releases.
    """
    points = sum(field.points_LPD.shape[1] for field in fields)
    total = features_LSD.new_zeros(())
    for field in fields:
        first, second = (
            unit_mean(field.points_LPD, features_LSD[:, half::2]) - field.values_LPD
            for half in (0, 1)
        )
        total = total + (first * second).sum()
    return total / points


def pool_loss(features_LSD: Tensor, pool_LMD: Tensor) -> Tensor:
    """Return the energy distance of samples from images of the pool, summed over classes.

    Less a constant of the pool. The samples' distances from themselves do not count.

    Args:
        features_LSD: of samples, S at least 2.
        pool_LMD: of images drawn by their weights.
    """
    samples = features_LSD.shape[1]
    within = distances(features_LSD, features_LSD).sum((1, 2)) / (samples * (samples - 1))
    return (2 * distances(features_LSD, pool_LMD).mean((1, 2)) - within).sum()
