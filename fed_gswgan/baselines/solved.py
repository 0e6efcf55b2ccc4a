"""GS-WGAN with the Cramér critic, and DP-MERF, on records in one place: every record, every step.

What federated runs do (``fed_gswgan.critics.cramer``, ``fed_gswgan.field.adapt``) with a record in
the place of a client. Each record's answer is brought to norm 1; their sum gets noise, and is all
that the generator sees.

Shapes: N images, C channels, H and W image, L classes, P points of a class, D features, E numbers
at a point.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.accounting.calibrate import noise_for
from fed_gswgan.accounting.trust import DeclaredRelease, epsilon_of
from fed_gswgan.algorithms.mean_embedding import Embedding
from fed_gswgan.baselines.training import (
    OnDevice,
    TrainedBaseline,
    sampler_on_labels_device,
)
from fed_gswgan.critics.cramer import Statistic, field_of, scale_weight
from fed_gswgan.data.characters import DIGITS
from fed_gswgan.data.client_dataset import DataSpec, image_shape_of
from fed_gswgan.field.adapt import Adaptation
from fed_gswgan.field.rule import AdaptationSettings
from fed_gswgan.priors.prior import NONE, STROKES
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least, one_of

AT_ONCE = 250  # records
LONGER = 1 + 1e-6  # than its norm in float32, what an answer is divided by
RELATION = NeighboringRelation.REPLACE_ONE
PUBLISHED = "Gaussian differential privacy of all sums (arXiv 1905.02383); it is exact"
ADAPTATIONS = {"cramer": Adaptation, "mean-embedding": Embedding}


@dataclass(frozen=True, kw_only=True)
class SolvedSettings:
    """What is asked, how often, and what is public before.

    Attributes:
        asked: ``cramer``, directions at points, or ``mean-embedding``, waves at frequencies.
        releases: sums with noise; 0: the prior is returned as it is.
        adaptation: prior, features, points and steps of the fit; all are named.
    """

    asked: Literal["cramer", "mean-embedding"]
    releases: int
    adaptation: AdaptationSettings

    def __post_init__(self) -> None:
        one_of(ADAPTATIONS, asked=self.asked)
        at_least(0 if self.adaptation.prior != NONE else 1, releases=self.releases)
        at_least(1, points=self.adaptation.points)


def _preset(
    releases: int,
    fit_steps: int,
    asked: Literal["cramer", "mean-embedding"] = "cramer",
    features: str = STROKES,
    prior: str = NONE,
) -> SolvedSettings:
    adaptation = AdaptationSettings(
        prior=prior,
        features=features,
        points=32,
        feature_frequencies=12,
        feature_components=160,
        fit_steps=fit_steps,
    )
    return SolvedSettings(asked=asked, releases=releases, adaptation=adaptation)


SMALL = _preset(6, 1500, features="dct")
FULL = _preset(12, 6000, features="dct")
SMALL_FEATURES = _preset(6, 1500)
FULL_FEATURES = _preset(12, 6000)
SMALL_PRIOR = _preset(6, 1500, prior=STROKES)
FULL_PRIOR = _preset(12, 6000, prior=STROKES)
SMALL_EMBEDDING = _preset(6, 1500, "mean-embedding", prior=STROKES)
FULL_EMBEDDING = _preset(12, 6000, "mean-embedding", prior=STROKES)
SMALL_ALONE = FULL_ALONE = _preset(0, 1, prior=STROKES)


def releases_at(count: int) -> Callable[[float], tuple[DeclaredRelease, ...]]:
    """Return what so many sums release at a noise, in units of a record's bound."""

    def releases(noise_stddev: float) -> tuple[DeclaredRelease, ...]:
        return (
            DeclaredRelease(
                what="sums over all records of normalised answers",
                mu=RELATION.sensitivity_multiple / noise_stddev,
                rounds=count,
                relation=RELATION,
            ),
        )

    return releases


@torch.no_grad()
def summed_answers(
    points_LPD: Tensor,
    public_LPE: Tensor,
    features_ND: Tensor,
    labels_N: Tensor,
    statistic: Statistic,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the records' answers, each of norm 1, added up: private.

    As ``client_update`` of clients with one image each.

    Returns:
        (L x P, E) and numbers of scale (L,), float64.
    """
    scale = scale_weight(points_LPD.shape[1])
    rows_LPE = torch.zeros(public_LPE.shape, dtype=torch.float64)
    scale_L = np.zeros(len(points_LPD))
    for label, (points_PD, public_PE) in enumerate(zip(points_LPD, public_LPE, strict=True)):
        for mine_ND in torch.split(features_ND[labels_N == label], AT_ONCE):
            rows_NPE = statistic.each(points_PD, mine_ND) - public_PE
            norms_N = (rows_NPE.flatten(1).square().sum(1) + scale**2).sqrt()
            shares_N = 1 / (LONGER * norms_N.double())
            rows_LPE[label] += torch.einsum("n,npe->pe", shares_N, rows_NPE.double())
            scale_L[label] += scale * float(shares_N.sum())
    return rows_LPE.flatten(0, 1).numpy(), scale_L


def train(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    settings: SolvedSettings,
    epsilon: float,
    delta: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> TrainedBaseline:
    """Fit a generator to noisy sums of all records' answers.

    Arguments are those of ``Method.train``; epsilon holds under replacement of a record, image and
    label. With a prior the labels are digits. It runs on the CPU.

    Source: as ``fed_gswgan.critics.cramer``; DP-MERF, arXiv 2002.11603.
    """
    seeds, own, count = SeedStream(seed), settings.adaptation, settings.releases
    images_NCHW, labels_N = images_NCHW.cpu(), labels_N.cpu()
    names = DIGITS[:num_classes] if own.prior != NONE else ()
    spec = DataSpec(image_shape_of(images_NCHW), num_classes, names)
    adaptation = ADAPTATIONS[settings.asked](own, spec, seeds, max(count, 1))
    generator = OnDevice(adaptation.trainer.ema_generator, torch.device("cpu"))
    sampler = sampler_on_labels_device(generator, own)
    if not count:
        progress(1.0)
        return TrainedBaseline(
            sampler=sampler, releases=(), published_epsilon=0.0, published_accounting=PUBLISHED
        )
    declared = releases_at(count)
    noise_stddev = noise_for(declared, epsilon, delta)
    with torch.no_grad():
        features_ND = adaptation.features(images_NCHW)
    for step in range(1, count + 1):
        question = adaptation.ask(step)
        points_LPD, public_LPE = question.points_LPD.float(), question.public_LPE.float()
        rows_RE, scale_L = summed_answers(
            points_LPD, public_LPE, features_ND, labels_N, adaptation.statistic
        )
        noise = SeededNoise(seeds.generator("noise", step))
        noisy_RE, noisy_L = (noise.add_noise(x, noise_stddev) for x in (rows_RE, scale_L))
        field = field_of(points_LPD, public_LPE, noisy_RE, noisy_L, noise_stddev)
        adaptation.learn(step, field, question.latents_LPZ)
        progress(step / count)
    releases = declared(noise_stddev)
    return TrainedBaseline(
        sampler=sampler,
        releases=releases,
        published_epsilon=epsilon_of(releases, delta),
        published_accounting=PUBLISHED,
    )
