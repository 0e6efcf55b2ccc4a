"""Reads many noisy releases as one: a network that is fitted to them on the server.

A round's combined gradient is a few rows of signal under several times as much noise. Over rounds
there are many such rows, at samples that resemble one another; a regression of rows on samples and
labels averages the noise away, and what it predicts holds for samples nobody was asked about. All
it sees was released before, so it costs no privacy.

Shapes: N rounds kept, B batch, C channels, H and W image, F values of a row, D hidden units.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.basis import release_shape, to_pixels, to_release_basis
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.models.trainer import GeneratorTrainer, from_tensors, to_tensors
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Count, Positive, Settings

NEGATIVE_SLOPE = 0.2
BATCH_SIZE = 128  # rows of a fitting step


class FieldSettings(Settings):
    """What the server makes of a release; privacy stays the same."""

    release_use: Literal["step", "field"] = "step"
    """the paper's generator step; field: fit a network to releases, follow it"""
    field_rounds: Count = 5
    """of releases that the field is fitted to"""
    field_steps: Count = 20
    """of fitting, a release"""
    field_width: Count = 256
    """of its two hidden layers"""
    field_learning_rate: Positive = 1e-3
    """of its Adam"""
    field_batch_size: Count = 64
    """samples of a generator step along the field"""
    generator_steps_per_release: Count = 4
    """along the field"""
    field_unit: Positive = 1.0
    """length of a released row, which the field computes in units of"""


FIELD_BETAS = (0.9, 0.99)


class FieldOwner(Protocol):
    """Settings of an algorithm that uses the field: those above and the basis of its releases."""

    field_rounds: int
    field_steps: int
    field_width: int
    field_learning_rate: float
    field_batch_size: int
    generator_steps_per_release: int
    field_unit: float
    dct_frequencies: int


class GradientField:
    """The field and its optimizer; fits one more release and lets the generator follow it.

    Args:
        settings: of the field, and ``dct_frequencies`` of the releases.
        samples_shape: of a round's samples, (B, C, H, W).
        num_classes: of the data set.
        seeds: the field's first weights follow from these.
    """

    def __init__(
        self,
        settings: FieldOwner,
        samples_shape: tuple[int, ...],
        num_classes: int,
        seeds: SeedStream,
    ) -> None:
        self._settings, self._num_classes = settings, num_classes
        with initial_weights_from(seeds.torch_seed("field-weights")):
            self.network = FieldNetwork(
                num_classes,
                samples_shape,
                settings.dct_frequencies,
                settings.field_unit,
                settings.field_rounds,
                settings.field_width,
            )
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.field_learning_rate, betas=FIELD_BETAS
        )

    def learn(
        self,
        trainer: GeneratorTrainer,
        samples_BCHW: Tensor,
        labels_B: Tensor,
        gradient_BCHW: Tensor,
        randomness: np.random.Generator,
    ) -> float:
        """Fit the field to one more release and follow it; return the last gradient's norm.

        Args:
            trainer: whose generator takes steps along the field.
            samples_BCHW: that were sent.
            labels_B: their labels.
            gradient_BCHW: the combined release, a row a sample.
            randomness: draws the rows to fit, and the generator's samples.
        """
        settings = self._settings
        self.network.keep(samples_BCHW, labels_B, gradient_BCHW)
        self.network.fit(settings.field_steps, self.optimizer, randomness)
        return trainer.follow(
            self.network.gradient,
            settings.generator_steps_per_release,
            settings.field_batch_size,
            self._num_classes,
            randomness,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return to_tensors({"field": self.network}, {"field-optimizer": self.optimizer})

    def from_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from ``to_tensors``."""
        from_tensors(tensors, {"field": self.network}, {"field-optimizer": self.optimizer})


class FieldNetwork(nn.Module):
    """(samples, labels) -> the gradient that clients would release there, without its noise.

    The last releases are buffers, so that a checkpoint of the module resumes it whole.

    Args:
        num_classes: of the data set.
        samples_shape: of a round's samples, (B, C, H, W).
        dct_frequencies: that releases hold of each axis; 0: they hold pixels.
        unit: of the values that it computes.
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
        unit: float,
        rounds: int,
        width: int,
    ) -> None:
        super().__init__()
        self._frequencies, self._unit = dct_frequencies, unit
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
        values = self(samples_BCHW, labels_B).unflatten(1, self._row_shape) * self._unit
        pixels = to_pixels(values.numpy(), samples_BCHW.shape[-1], self._frequencies)
        return torch.from_numpy(pixels)

    @torch.no_grad()
    def keep(self, samples_BCHW: Tensor, labels_B: Tensor, gradient_BCHW: Tensor) -> None:
        """Keep a round's samples and its combined release in place of the oldest."""
        released = to_release_basis(gradient_BCHW.numpy(), self._frequencies)
        place = int(self.releases) % len(self.labels_NB)
        self.samples_NBCHW[place] = samples_BCHW
        self.labels_NB[place] = labels_B
        self.values_NBF[place] = torch.from_numpy(released / self._unit).flatten(1)
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
