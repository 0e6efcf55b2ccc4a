"""Random Fourier features: vectors of norm 1 whose dot products approximate Gaussian kernels.

Shapes: N points, P coordinates of a point, W frequencies, F features.
"""

import math

import numpy as np
import torch
from torch import Tensor


class RandomFeatures:
    """Cosines and sines of random projections, drawn without any data.

    The dot product of two points' features is about the mean, over the variances v, of
    exp(-|difference|^2 / (2 v)). Each point's features have norm 1 up to rounding, whatever it is,
    since cos^2 + sin^2 = 1: a bound that needs no clipping.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines (NIPS 2007).
    """

    def __init__(
        self,
        dimensions: int,
        frequencies: int,
        kernel_variances: tuple[float, ...],
        randomness: np.random.Generator,
        device: torch.device,
    ) -> None:
        """Draw the frequencies.

        Args:
            dimensions: of a point, P.
            frequencies: W, spread evenly over the variances.
            kernel_variances: of the Gaussian kernels, in squared units of the points.
            randomness: of the frequencies.
            device: of the points.
        """
        variances_W1 = np.resize(kernel_variances, frequencies)[:, None]
        drawn_WP = randomness.standard_normal((frequencies, dimensions)) / np.sqrt(variances_W1)
        self._frequencies_WP = torch.from_numpy(drawn_WP.astype(np.float32)).to(device)

    @property
    def count(self) -> int:
        """How many features a point has, F = 2 W."""
        return 2 * len(self._frequencies_WP)

    def __call__(self, points_NP: Tensor) -> Tensor:
        """Return features_NF of float32 points."""
        angles_NW = points_NP @ self._frequencies_WP.T
        features_NF = torch.cat([angles_NW.cos(), angles_NW.sin()], dim=1)
        return features_NF / math.sqrt(len(self._frequencies_WP))
