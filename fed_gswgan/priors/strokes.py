"""Pool of drawn characters, all of which follows from one seed: no image of any person enters.

Shapes: L classes, M drawings of a class, H and W image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fed_gswgan.data.strokes import broad_pen, draw, forms_of
from fed_gswgan.progress import steps
from fed_gswgan.seeding import SeedStream


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
    for name in steps("drawing the pool", class_names):
        randomness = seeds.generator("pool", client_id=name)
        forms = randomness.choice(forms_of(name), size=images).tolist()
        drawings = draw([name] * images, forms, broad_pen(images, randomness), randomness)
        pool.append(torch.from_numpy(drawings[:, 0]))
    return torch.stack(pool)
