"""Prior of drawn characters: a pool of drawings, and a network that learned to read them.

Everything follows from one seed. No image of any person enters.

Shapes: L classes, M drawings of a class, N images, B batch, H and W image.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fed_gswgan.data.strokes import broad_pen, draw, forms_of
from fed_gswgan.models.features import FeatureNetwork
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.seeding import SeedStream

BATCH_SIZE = 256
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
SPECKLE = 0.03  # standard deviation of noise on a pixel

Progress = Callable[[float], None]
"""Takes the share of the work that is done."""


def draw_pool(class_names: Sequence[str], images: int, seeds: SeedStream) -> Tensor:
    """Return so many drawings of each class, float32 (L, M, H, W) in [0, 1].

    Each has a form of those that are not withheld, and a pen of its own. A class's drawings do not
    depend on which other classes there are.

    Args:
        class_names: a character each.
        images: M.
        seeds: of forms, pens and deformations.
    """
    pool = []
    for name in class_names:
        randomness = seeds.generator("pool", client_id=name)
        forms = randomness.choice(forms_of(name), size=images).tolist()
        drawings = draw([name] * images, forms, broad_pen(images, randomness), randomness)
        pool.append(torch.from_numpy(drawings[:, 0]))
    return torch.stack(pool)


def train_feature_network(
    pool_LMHW: Tensor,
    width: int,
    steps: int,
    seeds: SeedStream,
    progress: Progress = lambda share: None,
) -> FeatureNetwork:
    """Train a classifier of drawings, whose hidden layers are features.

    Args:
        pool_LMHW: the drawings, L at least 2.
        width: channels of the first convolution.
        steps: of AdamW, the learning rate rising and falling once.
        seeds: of weights, batches and distortions.
        progress: is told after each step.

    Returns:
        The network in eval mode.
    """
    classes, images = pool_LMHW.shape[:2]
    with initial_weights_from(seeds.torch_seed("feature-network")):
        network = FeatureNetwork(classes, width)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    randomness = seeds.generator("feature-network-batches")
    for step in range(steps):
        labels = randomness.integers(classes, size=BATCH_SIZE)
        chosen = pool_LMHW[labels, randomness.integers(images, size=BATCH_SIZE)]
        batch = distorted(chosen[:, None], randomness)
        loss = functional.cross_entropy(
            network(batch), torch.from_numpy(labels), label_smoothing=LABEL_SMOOTHING
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress((step + 1) / steps)
    return network.eval()


def distorted(images_B1HW: Tensor, randomness: np.random.Generator) -> Tensor:
    """Distort images as scans and hands do, so that a network reads more than it was shown.

    A random affine map, an elastic one, thicker or thinner lines, another contrast, and speckle.

    Args:
        images_B1HW: float32 in [0, 1], ink 1.
        randomness: decides every distortion.
    """
    count, side = len(images_B1HW), images_B1HW.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(randomness.standard_normal(shape, dtype=np.float32))

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(randomness.random(shape, dtype=np.float32))

    affine_B23 = torch.eye(2, 3) + 0.08 * normal(count, 2, 3)
    grid_BHW2 = functional.affine_grid(affine_B23, [count, 1, side, side], align_corners=False)
    elastic_B2HW = functional.interpolate(
        0.09 * normal(count, 2, 4, 4), (side, side), mode="bicubic", align_corners=True
    )
    grid_BHW2 = grid_BHW2 + elastic_B2HW.permute(0, 2, 3, 1)
    moved = functional.grid_sample(images_B1HW, grid_BHW2, align_corners=False)
    thicker = functional.max_pool2d(moved, 3, 1, 1)
    thinner = -functional.max_pool2d(-functional.pad(moved, (0, 1, 0, 1)), 2, 1)
    kind, share = uniform(count, 1, 1, 1), uniform(count, 1, 1, 1)
    other = torch.where(kind < 0.25, thicker, torch.where(kind > 0.8, thinner, moved))
    mixed = (moved + share * (other - moved)).clamp(0, 1)
    contrast = mixed ** torch.exp(0.4 * normal(count, 1, 1, 1))
    faded = contrast * (0.7 + 0.3 * uniform(count, 1, 1, 1))
    return (faded + SPECKLE * normal(*faded.shape)).clamp(0, 1)
