"""Small random deformations that leave a character the same character."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MAX_SHIFT_PIXELS = 2.0
MAX_ROTATION_RADIANS = 0.17
MAX_SCALING = 0.1


def deform(images_BCHW: Tensor, generator: np.random.Generator) -> Tensor:
    """Shift, turn and scale each image a little, filling with paper (0).

    Args:
        images_BCHW: float32 in [0, 1], ink 1 and paper 0.
        generator: the only source of randomness.

    Returns:
        Images of the same shape and range, interpolated bilinearly.
    """
    count, _, height, width = images_BCHW.shape
    angle = generator.uniform(-MAX_ROTATION_RADIANS, MAX_ROTATION_RADIANS, count)
    scale = generator.uniform(1 - MAX_SCALING, 1 + MAX_SCALING, count)
    shift_pixels = generator.uniform(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS, (2, count))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    # The sampling grid spans [-1, 1], so one pixel is 2 / size.
    across, down = shift_pixels[0] * 2 / width, shift_pixels[1] * 2 / height
    affine_B23 = np.stack([[cosine, -sine, across], [sine, cosine, down]]).transpose(2, 0, 1)
    grid_BHW2 = functional.affine_grid(
        torch.as_tensor(affine_B23, dtype=images_BCHW.dtype, device=images_BCHW.device),
        [count, 1, height, width],
        align_corners=False,
    )
    return functional.grid_sample(images_BCHW, grid_BHW2, align_corners=False)
