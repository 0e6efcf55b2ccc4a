"""Reads many noisy releases as one: a network that is fitted to them on the server.

A round's combined gradient is a few rows of signal under several times as much noise. Over rounds
there are many such rows, at samples that resemble one another; a regression of rows on samples and
labels averages the noise away, and what it predicts holds for samples nobody was asked about. All
it sees was released before, so it costs no privacy.

Shapes: N rounds kept, B batch, C channels, H and W image, F values of a row, D hidden units.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.release_basis import release_shape, to_pixels, to_release_basis

NEGATIVE_SLOPE = 0.2
BATCH_SIZE = 128  # rows of a fitting step


class GradientField(nn.Module):
    """(samples, labels) -> the gradient that clients would release there, without its noise.

    The last releases are buffers, so that a checkpoint of the module resumes it whole.

    Args:
        num_classes: of the data set.
        samples_shape: of a round's samples, (B, C, H, W).
        dct_frequencies: that releases hold of each axis; 0: they hold pixels.
        clipping_bound: of the releases, the unit that the field computes in.
        rounds: N, of releases to keep.
        width: D.
    """

    samples_NBCHW: Tensor
    labels_NB: Tensor
    values_NBF: Tensor
    releases: Tensor  # how many there were

    def __init__(
        self,
        num_classes: int,
        samples_shape: tuple[int, ...],
        dct_frequencies: int,
        clipping_bound: float,
        rounds: int,
        width: int,
    ) -> None:
        super().__init__()
        self._frequencies, self._clipping_bound = dct_frequencies, clipping_bound
        self._row_shape = release_shape(samples_shape, dct_frequencies)[1:]
        pixels, values = math.prod(samples_shape[1:]), math.prod(self._row_shape)
        batch = samples_shape[0]
        self.register_buffer("samples_NBCHW", torch.zeros(rounds, *samples_shape))
        self.register_buffer("labels_NB", torch.zeros(rounds, batch, dtype=torch.int64))
        self.register_buffer("values_NBF", torch.zeros(rounds, batch, values))
        self.register_buffer("releases", torch.zeros((), dtype=torch.int64))
        self.first = nn.Linear(pixels, width)
        self.second = nn.Linear(width, width)
        self.class_features = nn.Embedding(num_classes, width)
        # Zero at first: a field that knows nothing moves nothing.
        self.values = nn.Linear(width, values)
        self.class_values = nn.Embedding(num_classes, values)
        for parameter in (*self.values.parameters(), *self.class_values.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return values_BF, the predicted rows in the releases' basis and unit."""
        features = self.first(samples_BCHW.flatten(1)) + self.class_features(labels_B)
        features = self.second(functional.leaky_relu(features, NEGATIVE_SLOPE))
        features_BD = functional.leaky_relu(features, NEGATIVE_SLOPE)
        values_BF: Tensor = self.values(features_BD) + self.class_values(labels_B)
        return values_BF

    @torch.no_grad()
    def gradient(self, samples_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the predicted gradient_BCHW at these samples."""
        values = self(samples_BCHW, labels_B).unflatten(1, self._row_shape) * self._clipping_bound
        pixels = to_pixels(values.numpy(), samples_BCHW.shape[-1], self._frequencies)
        return torch.from_numpy(pixels)

    @torch.no_grad()
    def keep(self, samples_BCHW: Tensor, labels_B: Tensor, gradient_BCHW: Tensor) -> None:
        """Keep a round's samples and its combined release in place of the oldest."""
        released = to_release_basis(gradient_BCHW.numpy(), self._frequencies)
        place = int(self.releases) % len(self.labels_NB)
        self.samples_NBCHW[place] = samples_BCHW
        self.labels_NB[place] = labels_B
        self.values_NBF[place] = torch.from_numpy(released / self._clipping_bound).flatten(1)
        self.releases += 1

    def fit(
        self, steps: int, optimizer: torch.optim.Optimizer, randomness: np.random.Generator
    ) -> None:
        """Take so many steps of least squares on rows drawn from the releases that are kept."""
        rounds = min(int(self.releases), len(self.labels_NB))
        samples = self.samples_NBCHW[:rounds].flatten(0, 1)
        labels, values = self.labels_NB[:rounds].flatten(), self.values_NBF[:rounds].flatten(0, 1)
        for _ in range(steps):
            rows = torch.from_numpy(randomness.integers(len(labels), size=BATCH_SIZE))
            loss = (self(samples[rows], labels[rows]) - values[rows]).square().sum(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
