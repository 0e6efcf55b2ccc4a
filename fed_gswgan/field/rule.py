"""How much is asked of clients, and how much of what they said is trusted: one rule.

What is asked follows from the noise of the mean, which is known before a run: the noisier, the
fewer numbers, since clients spend their bound on all of them together (``resolved``). What is
trusted, fields or public pool, follows from the precision of the fields that came (``rule``).
Settings that name a number win.
"""

import logging
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from fed_gswgan.critics.cramer import Field
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.priors.prior import COMPONENTS, FREQUENCIES, NONE, PriorSettings
from fed_gswgan.settings import Whole

logger = logging.getLogger(__name__)

FIT_STEPS, LONG_FIT_STEPS = 400, 900  # the long one where the fields are precise
VERY_NOISY, NOISY = 0.02, 0.004  # of the mean, in units of the bound
MANY_CLASSES = 20


class Rule(NamedTuple):
    """How much of what the server trusts.

    Attributes:
        precision: mean over classes of the sum over points of 1 / sigma^2.
        strength: of the weights' pull to their base.
        pool_share: weight of the pool to that of the fields, at most 1, at this precision.
        field_weights_L: of each class's fields in the fit's loss, by its own precision.
        pool_weights_L: of each class's pool there; the larger of both is 1.
        style: whether all classes share a style.
    """

    precision: float
    strength: float
    pool_share: float
    field_weights_L: Tensor
    pool_weights_L: Tensor
    style: bool


def rule(fields: list[Field]) -> Rule:
    """Return how much of what the fields, and the pool, are trusted."""
    precisions = [f.points_LPD.shape[1] * f.deviation_L.double() ** -2 for f in fields]
    precision_L = torch.stack(precisions).sum(0)
    precision = float(precision_L.mean())
    shares_L = ((150 / precision_L) ** 0.6).float()
    return Rule(
        precision=precision,
        strength=min(max(20 * (precision / 40) ** -0.2, 3.0), 20.0),
        pool_share=min((150 / precision) ** 0.6, 1.0),
        field_weights_L=1 / shares_L.clamp(min=1),
        pool_weights_L=shares_L.clamp(max=1),
        style=precision < 200,
    )


class AdaptationSettings(PriorSettings, GeneratorSettings):
    """What an adaptation reads of an algorithm's settings."""

    points: Whole = 0
    """of a class, that a release answers (critic cramer); 0: follows from the noise"""
    fit_steps: Whole = 0
    """of the generator, of all releases together (critic cramer); 0: follows from the noise"""


Of = TypeVar("Of", bound=AdaptationSettings)


def resolved(settings: Of, spec: DataSpec, mean_noise: float) -> Of:
    """Return settings whose zeros are filled in by the noise of the mean.

    The noisier, the fewer numbers: clients spend their bound on all of them together. Where there
    is little noise a run without a prior asks at more points, which are its generator's samples.

    Args:
        settings: of an algorithm.
        spec: of the data set.
        mean_noise: standard deviation of one coordinate of the mean, in units of the bound.
    """
    many = spec.num_classes > MANY_CLASSES
    frequencies, components, steps = FREQUENCIES, COMPONENTS, FIT_STEPS
    if mean_noise > VERY_NOISY:
        points, frequencies, components = 1, 4, 24
    elif mean_noise > NOISY:
        points = 2 if many else 4
    else:
        few = 16 if settings.prior == NONE else 8  # without a prior, points lead the samples
        points, steps = 4 if many else few, LONG_FIT_STEPS
    frequencies = min(frequencies, *spec.image_shape[1:])
    found = {
        "points": settings.points or points,
        "feature_frequencies": settings.feature_frequencies or frequencies,
        "feature_components": settings.feature_components or components,
        "fit_steps": settings.fit_steps or steps,
    }
    logger.info(
        "noise of the mean %.3g of the bound: %d points of a class, %d x %d frequencies and %d "
        "components, %d steps of the fit", mean_noise, found["points"],
        found["feature_frequencies"], found["feature_frequencies"], found["feature_components"],
        found["fit_steps"],
    )  # fmt: skip
    return settings.model_copy(update=found)
