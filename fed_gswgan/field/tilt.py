"""Tilt: weights of a public pool of images that explain a noisy field.

A field (``fed_gswgan.critics.cramer``) says at public points q in which direction the images of
clients lie on average. Of all weights of the pool's images the tilt finds those whose own mean
directions are nearest to it, each value by its noise, and which stay near to the base weights:

    minimise over w  |sum_i w_i u(q - phi(pool_i)) - field|^2 / (2 sigma^2) + strength KL(w | base)

It is convex. The base is uniform or, for many classes, a style that all classes share: the pool of
each is weighted by exp(theta . style), with one theta, so that classes with few holders learn from
the others. Only public images and what was released enter: it costs no privacy.

Shapes: L classes, M pool images of a class, P points of a class, D features, T numbers of style,
H and W image.

Source: mirror descent with the entropy: Beck and Teboulle (2003); reweighting a public pool for
    private synthetic data: arXiv 2506.08312.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fed_gswgan.critics.cramer import DIRECTIONS, Field, Statistic
from fed_gswgan.progress import steps

STEPS = 400
STYLE_STEPS = 200
STYLE_LEARNING_RATE = 0.05


def uniform(classes: int, images: int) -> Tensor:
    """Return the logarithms (L, M) of equal weights."""
    return torch.full((classes, images), -math.log(images))


class Evidence(NamedTuple):
    """What fields say of the weights w of each class: ``w products w / 2 - wanted w``, least.

    Attributes:
        products_LMM: of the pool images' directions at all points, each in units of the noise.
        wanted_LM: products of those directions with the fields.
    """

    products_LMM: Tensor
    wanted_LM: Tensor

    def plus(self, other: "Evidence") -> "Evidence":
        """Return the evidence of both."""
        return Evidence(self.products_LMM + other.products_LMM, self.wanted_LM + other.wanted_LM)


def evidence_of(field: Field, pool_LMD: Tensor, statistic: Statistic = DIRECTIONS) -> Evidence:
    """Return what one release's field says of the weights of the pool's images.

    Args:
        field: of the release.
        pool_LMD: features of the pool's images.
        statistic: what it is a field of.
    """
    products, wanted = [], []
    for label, pool_MD in enumerate(pool_LMD):
        said_MPE = statistic.each(field.points_LPD[label], pool_MD)
        said_MV = said_MPE.flatten(1) / field.deviation_L[label]
        values_V = (field.values_LPE[label] / field.deviation_L[label]).flatten()
        products.append(said_MV @ said_MV.T)
        wanted.append(said_MV @ values_V)
    return Evidence(torch.stack(products), torch.stack(wanted))


def tilted(evidence: Evidence, log_base_LM: Tensor, strength: float) -> Tensor:
    """Return the logarithms (L, M) of the weights that explain the fields.

    Args:
        evidence: of all releases.
        log_base_LM: logarithms of the weights to stay near to.
        strength: of the pull to them: the larger, the nearer.
    """
    found = []
    of_classes = list(zip(*evidence, log_base_LM, strict=True))
    for products_MM, wanted_M, log_base_M in steps("weights of the pool", of_classes):
        step = 1 / (strength + float(products_MM.abs().max()))
        log_weights_M = log_base_M
        for _ in range(STEPS):
            slope_M = products_MM @ log_weights_M.exp() - wanted_M
            pull_M = strength * (log_weights_M - log_base_M)
            log_weights_M = torch.log_softmax(log_weights_M - step * (slope_M + pull_M), 0)
        found.append(log_weights_M)
    return torch.stack(found)


def shared_style(evidence: Evidence, style_LMT: Tensor, theta_T: Tensor) -> Tensor:
    """Return the style theta (T,) that explains the fields of all classes together.

    Args:
        evidence: of all releases.
        style_LMT: of the pool's images, as ``style_of``.
        theta_T: where the search begins: what was found after the last release.
    """
    products_LMM, wanted_LM = evidence
    theta_T = theta_T.clone().requires_grad_()
    optimizer = torch.optim.Adam([theta_T], lr=STYLE_LEARNING_RATE)
    for _ in steps("style of the pool", range(STYLE_STEPS)):
        weights_LM = log_base_of(style_LMT, theta_T).exp()
        explained_LM = (products_LMM @ weights_LM[:, :, None])[:, :, 0] / 2 - wanted_LM
        loss = (weights_LM * explained_LM).sum() + len(style_LMT) * theta_T.square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return theta_T.detach()


def log_base_of(style_LMT: Tensor, theta_T: Tensor) -> Tensor:
    """Return the logarithms (L, M) of weights exp(theta . style) of each class, normalised."""
    return torch.log_softmax(style_LMT @ theta_T, 1)


def style_of(pool_LMHW: Tensor) -> Tensor:
    """Return twelve numbers of style of each image, standardised within its class, (L, M, 12).

    Six numbers and their squares less 1: logarithms of the variance of ink across and down and of
    the amount of ink, the darkest value, slant, and the logarithm of the area that is mostly ink.
    """
    height, width = pool_LMHW.shape[-2:]
    down_H = torch.arange(height) - (height - 1) / 2
    across_W = torch.arange(width) - (width - 1) / 2
    ink = pool_LMHW.sum((-2, -1)).clamp(min=1e-3)
    columns, rows = pool_LMHW.sum(-2) / ink[..., None], pool_LMHW.sum(-1) / ink[..., None]
    mean_across, mean_down = columns @ across_W, rows @ down_H
    variance_across = columns @ across_W.square() - mean_across.square()
    variance_down = rows @ down_H.square() - mean_down.square()
    together = torch.einsum("lmhw,h,w->lm", pool_LMHW, down_H, across_W) / ink
    numbers = [
        variance_across.clamp(min=0.1).log(),
        variance_down.clamp(min=0.1).log(),
        ink.log(),
        pool_LMHW.amax((-2, -1)),
        (together - mean_across * mean_down) / variance_down.clamp(min=0.5),
        (1 + (pool_LMHW > 0.5).sum((-2, -1))).log(),
    ]
    style_LMT = torch.stack(numbers, 2)
    deviation_L1T = style_LMT.std(1, keepdim=True).clamp(min=1e-3)
    style_LMT = (style_LMT - style_LMT.mean(1, keepdim=True)) / deviation_L1T
    return torch.cat([style_LMT, style_LMT.square() - 1], 2)
