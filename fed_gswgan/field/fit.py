"""Fit of a generator to noisy fields and to a weighted pool of public images.

Both losses are functions of the samples' features, through which gradients reach the generator.

Shapes: L classes, S samples of a class, M pool images of a class, P points of a class, D features.
"""

from collections.abc import Sequence

from torch import Tensor

from fed_gswgan.critics.cramer import DIRECTIONS, Field, Statistic, distances, unit_mean

FORGOTTEN_AT = 3.0  # distance in feature space


def field_loss(
    features_LSD: Tensor, fields: Sequence[Field], statistic: Statistic = DIRECTIONS
) -> Tensor:
    """Return how far samples of each class are from the fields, (L,): the mean over points.

    At a point the samples' mean should be the field. The squared miss of few samples is too large
    by their variance; the mean over all pairs of different samples, of the product of their misses,
    is not. What a sample says at a point has length 1, so that their mean is enough to find it.

    Args:
        features_LSD: of samples, S at least 2.
        fields: of all releases.
        statistic: what they are fields of; L is a dimension before the others.
    """
    samples = features_LSD.shape[1]
    points = sum(field.points_LPD.shape[1] for field in fields)
    total_L = features_LSD.new_zeros(len(features_LSD))
    for field in fields:
        said_LPE = statistic.mean(field.points_LPD, features_LSD, None)
        pairs_LP = (samples * said_LPE.square().sum(2) - 1) / (samples - 1)
        miss_LP = pairs_LP - 2 * (said_LPE * field.values_LPE).sum(2)
        total_L = total_L + (miss_LP + field.values_LPE.square().sum(2)).sum(1)
    return total_L / points


def pool_loss(features_LSD: Tensor, pool_LMD: Tensor) -> Tensor:
    """Return the energy distance of each class's samples from images of the pool, (L,).

    Less a constant of the pool. The samples' distances from themselves do not count.

    Args:
        features_LSD: of samples, S at least 2.
        pool_LMD: of images drawn by their weights.
    """
    samples = features_LSD.shape[1]
    within_L = distances(features_LSD, features_LSD).sum((1, 2)) / (samples * (samples - 1))
    return 2 * distances(features_LSD, pool_LMD).mean((1, 2)) - within_L


def sample_loss(
    now_LPD: Tensor, points_LPD: Tensor, values_LPE: Tensor, samples_LSD: Tensor
) -> Tensor:
    """Return a loss (L,) whose slope in samples' features is the critic's gradient at them.

    A sample far from every point hardly changes the mean direction there, so that ``field_loss``
    leaves it where it is. The samples that were asked about are told themselves where to go: along
    the field less the mean direction from the other samples. What was asked is no longer true of a
    sample that has moved away, and weighs less.

    Args:
        now_LPD: features of the samples that were asked about, as they are now.
        points_LPD: the same as they were asked about.
        values_LPE: the field there.
        samples_LSD: features of other samples, without a graph.
    """
    toward_LPD = (values_LPE - unit_mean(now_LPD.detach(), samples_LSD)).detach()
    moved_LP = (now_LPD.detach() - points_LPD).norm(dim=2)
    weights_LP = (1 - moved_LP / FORGOTTEN_AT).clamp(min=0)
    loss_L: Tensor = (weights_LP * (now_LPD * toward_LPD).sum(2)).mean(1)
    return loss_L
