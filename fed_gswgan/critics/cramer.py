"""The Cramér critic: solved in closed form, without training and without state.

The energy (Cramér) distance is linear in the distribution of the data. So the mean over clients of
its gradients is the gradient for the mixture of the clients' distributions, however few images each
of them holds; gradients of averaged Wasserstein critics are not (arXiv 1705.10743). With public
features phi and u(v) = v / |v|, u(0) = 0, the critic of class c is

    f(x) = E |phi(x) - phi(x')| - E |phi(x) - phi(y)|,  x' public, y the client's images of class c

and its gradient at a point q of feature space has a public and a private half:

    mean over public x' of u(q - phi(x'))  -  mean over the client's y of u(q - phi(y))

Clients answer with the private half less the public one (re-centring makes it shorter), in one
vector for all classes that also carries the client's scale: one number a class, the same where the
client holds the class and 0 where not. The bound brings every client's vector to one length. The
mean of those numbers tells what it did on average, so that the server can undo it: the field is
the mean over the holders of a class, each weighted by its scale.

Shapes: L classes, P points of a class, D features, N images, E numbers at a point.

Source: energy distance: Székely and Rizzo (2013); Cramér GAN: Bellemare et al., arXiv 1705.10743.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SCALE_SHARE = 0.7  # length of the numbers of scale to that of a class's rows
LEAST_DISTANCE = 1e-6  # below it a direction is taken to be none
LONGEST = 1e12  # beyond every bound, so that each vector is brought to it
LEAST_DEVIATION = 0.02  # of a direction's coordinate: noise below it is not what limits a fit


def unit_mean(points_PD: Tensor, images_ND: Tensor, weights_N: Tensor | None = None) -> Tensor:
    """Return the mean of u(point - image) over the images, (P, D); gradients flow through it.

    Args:
        points_PD: floating; both may have dimensions before these, of classes for instance.
        images_ND: of the same dtype; N > 0.
        weights_N: of the mean, with sum 1, or of the mean at each point, (P, N); None: equal ones.
    """
    inverse_PN = 1 / distances(points_PD, images_ND)
    inverse_PN = inverse_PN / images_ND.shape[-2] if weights_N is None else inverse_PN * weights_N
    return points_PD * inverse_PN.sum(-1, keepdim=True) - inverse_PN @ images_ND


def distances(first_AD: Tensor, second_BD: Tensor) -> Tensor:
    """Return the distances (A, B), at least ``LEAST_DISTANCE``, with a slope of 0 there."""
    exact_AB = torch.cdist(first_AD, second_BD, compute_mode="donot_use_mm_for_euclid_dist")
    return exact_AB.clamp(min=LEAST_DISTANCE)


def unit_each(points_PD: Tensor, images_ND: Tensor) -> Tensor:
    """Return u(point - image) of each image at each point, (N, P, D)."""
    between_NPD = points_PD - images_ND[:, None]
    lengths_NP1: Tensor = between_NPD.norm(dim=2, keepdim=True).clamp(min=LEAST_DISTANCE)
    return between_NPD / lengths_NP1


class Statistic(NamedTuple):
    """What images say at points: E numbers at each, of length 1 together.

    The critic's is a direction, of D numbers; other algorithms ask for others.

    Attributes:
        mean: (points (P, D), images (N, D), weights (N,), (P, N) or None) -> mean over the images,
            (P, E).
        each: (points (P, D), images (N, D)) -> of each image, (N, P, E).
    """

    mean: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    each: Callable[[Tensor, Tensor], Tensor]


DIRECTIONS = Statistic(unit_mean, unit_each)


def scale_weight(points: int) -> float:
    """Return the number that a client answers beside the rows of a class that it holds."""
    return SCALE_SHARE * math.sqrt(points)


def client_update(
    points_LPD: Tensor,
    public_LPE: Tensor,
    features_ND: Tensor,
    labels_N: Tensor,
    statistic: Statistic = DIRECTIONS,
) -> tuple[Tensor, Tensor]:
    """Return a client's rows (L, P, E) and numbers of scale (L,), longer than every bound.

    Args:
        points_LPD: that the server asks about.
        public_LPE: the public half at each of them.
        features_ND: of the client's images; N may be 0.
        labels_N: of the images, in [0, L).
        statistic: what is asked.

    A class that the client does not hold has zeros. A client without images has zeros alone, which
    the noise makes a release like any other.
    """
    classes, points = points_LPD.shape[:2]
    mine_LN = labels_N == torch.arange(classes)[:, None]
    held_L = mine_LN.any(1)
    if not held_L.any():
        return torch.zeros_like(public_LPE), public_LPE.new_zeros(classes)
    # One product for all classes: an image's weight is 0 at the points of another class.
    weights_LN = LONGEST * mine_LN / mine_LN.sum(1, keepdim=True).clamp(min=1)
    weights_RN = weights_LN.repeat_interleave(points, 0)
    mean_RE = statistic.mean(points_LPD.flatten(0, 1), features_ND, weights_RN)
    rows_LPE = mean_RE.view_as(public_LPE).sub_(public_LPE, alpha=LONGEST)
    return rows_LPE * held_L[:, None, None], LONGEST * scale_weight(points) * held_L


class Field(NamedTuple):
    """What clients' data pull towards at public points, with noise.

    Attributes:
        points_LPD: where.
        values_LPE: estimates of the mean over holders of the class, of u(point - image) for the
            critic.
        deviation_L: standard deviation of the noise on one coordinate of a class's values, at
            least ``LEAST_DEVIATION``.
    """

    points_LPD: Tensor
    values_LPE: Tensor
    deviation_L: Tensor


def field_of(
    points_LPD: Tensor,
    public_LPE: Tensor,
    update_RN: np.ndarray,
    extra_E: np.ndarray,
    noise_stddev: float,
) -> Field:
    """Return the field that a mean update says, each class divided by its mean scale.

    Args:
        points_LPD: that were asked about.
        public_LPE: the public half at each of them.
        update_RN: the mean update, a row a point.
        extra_E: the mean numbers of scale, one a class.
        noise_stddev: of one coordinate of both, absolute.

    A scale below the noise is taken to be the noise: a class that nobody holds gets a deviation of
    1, which no direction exceeds, and without noise its public half.
    """
    scale_L = torch.from_numpy(extra_E) / scale_weight(points_LPD.shape[1])
    scale_L = scale_L.clamp(min=max(noise_stddev, 1e-12))
    rows_LPE = torch.from_numpy(update_RN).reshape(public_LPE.shape)
    values_LPE = public_LPE + rows_LPE / scale_L[:, None, None]
    deviation_L = (noise_stddev / scale_L).clamp(min=LEAST_DEVIATION)
    return Field(points_LPD, values_LPE.float(), deviation_L.float())
