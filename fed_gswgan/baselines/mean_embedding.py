"""The mean embedding of labelled points, its release, and a generator that is fitted to it.

Shapes: N points, B batch, P coordinates of a point, Z latent, F features, L classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.models.trainer import draw_latents
from fed_gswgan.privacy.mechanism import NeighboringRelation
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.validation import at_least, positive

POINTS_AT_ONCE = 2000


@torch.no_grad()
def mean_embedding(
    features: RandomFeatures, points_NP: Tensor, labels_N: Tensor, num_classes: int
) -> Tensor:
    """Return the mean over N of features x one-hot label, float64 (F, L): private.

    A point adds a matrix of norm 1 over N, in the column of its class.
    """
    sums_FL = torch.zeros((features.count, num_classes), dtype=torch.float64)
    for start in range(0, len(points_NP), POINTS_AT_ONCE):
        chosen = slice(start, start + POINTS_AT_ONCE)
        classes_NL = functional.one_hot(labels_N[chosen], num_classes).float()
        sums_FL += (features(points_NP[chosen]).T @ classes_NL).cpu()
    return sums_FL / len(points_NP)


def release_embedding(
    embedding_FL: Tensor,
    count: int,
    relation: NeighboringRelation,
    noise_multiplier: float,
    noise: NoiseSource,
) -> Tensor:
    """Return the embedding with Gaussian noise on it, float32 (F, L).

    Args:
        embedding_FL: of ``mean_embedding``.
        count: N, public and the same for neighbours.
        relation: a point that is replaced moves the embedding by 2 / N at most, one that is zeroed
            out, features and all, by 1 / N.
        noise_multiplier: noise over that sensitivity.
        noise: where it comes from.
    """
    sensitivity = relation.sensitivity_multiple / count
    noisy_FL = noise.add_noise(embedding_FL.cpu().numpy(), noise_multiplier * sensitivity)
    return torch.from_numpy(noisy_FL.astype(np.float32)).to(embedding_FL.device)


@dataclass(frozen=True, kw_only=True)
class FittingSettings:
    """How a generator is fitted to an embedding; no data are left to protect.

    Attributes:
        steps: of Adam.
        samples_per_class: in each step, at least 2.
        learning_rate: at first.
        final_learning_rate_share: of it that is left at the end; it falls geometrically.
    """

    steps: int
    samples_per_class: int
    learning_rate: float
    final_learning_rate_share: float

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps)
        at_least(2, samples_per_class=self.samples_per_class)
        positive(learning_rate=self.learning_rate)
        positive(final_learning_rate_share=self.final_learning_rate_share)


def embedding_distance(sample_features_BF: Tensor, released_FL: Tensor) -> Tensor:
    """Return the squared distance of the samples' embedding from the one released, a scalar.

    Without bias: the pairs of a sample with itself, which a batch has too many of, are left out and
    the others count for them. So it may be negative; its expectation is the squared distance of
    the generator's own embedding.

    Args:
        sample_features_BF: of samples whose labels are 0, 1, .. L-1, 0, 1, ..; as many of each
            class, 2 at least.
        released_FL: of data with about as many points of each class.

    Source: DP-MERF, arXiv 2002.11603, the objective; Gretton et al., A Kernel Two-Sample Test
        (JMLR 2012), section 2.2, the estimate.
    """
    classes = released_FL.shape[1]
    sample_features_KLF = sample_features_BF.view(-1, classes, sample_features_BF.shape[1])
    per_class = len(sample_features_KLF)
    embedding_FL = sample_features_KLF.mean(0).T / classes
    own_pairs = 1 / (per_class * classes)
    squared_norm = (embedding_FL.square().sum() - own_pairs) * (per_class / (per_class - 1))
    distance: Tensor = squared_norm + (released_FL - 2 * embedding_FL).mul(released_FL).sum()
    return distance


def fit_to_embedding(
    generator: nn.Module,
    latent_dim: int,
    features: RandomFeatures,
    released_FL: Tensor,
    settings: FittingSettings,
    randomness: np.random.Generator,
    progress: Callable[[float], None],
) -> None:
    """Train a generator until its samples have the embedding that was released.

    Args:
        generator: (latents_BZ, labels_B) to points; may mix the rows of a batch. It is left in
            evaluation mode.
        latent_dim: Z, of standard normal latents.
        features: those of the embedding.
        released_FL: all that is seen of the data, on the generator's device.
        settings: of the fit.
        randomness: of the latents.
        progress: told the share that is done, in [0, 1].
    """
    device, num_classes = released_FL.device, released_FL.shape[1]
    labels_B = torch.arange(num_classes, device=device).repeat(settings.samples_per_class)
    optimizer = torch.optim.Adam(generator.parameters(), lr=settings.learning_rate)
    decay = settings.final_learning_rate_share ** (1 / settings.steps)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    generator.train()
    for step in range(1, settings.steps + 1):
        latents_BZ = draw_latents(len(labels_B), latent_dim, "normal", randomness).to(device)
        samples_BP = generator(latents_BZ, labels_B).flatten(1)
        loss = embedding_distance(features(samples_BP), released_FL)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress(step / settings.steps)
    generator.eval()
