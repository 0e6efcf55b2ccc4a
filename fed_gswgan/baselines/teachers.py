"""Many small discriminators side by side, each of which sees its own shard alone.

Shapes: M teachers, S images of a shard, B batch, P pixels, D hidden units, L classes,
K coordinates.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fed_gswgan.baselines.shard_batches import draw_shard_batches

NEGATIVE_SLOPE = 0.2


class Teachers:
    """All teachers' weights in one tensor a layer, so that a step is a few products of batches.

    A teacher is image - hidden layer - logit with a projection on the class. No operation mixes two
    teachers: its weights depend on its own shard and on samples.
    """

    def __init__(
        self,
        images_MSP: Tensor,
        labels_MS: Tensor,
        num_classes: int,
        width: int,
        learning_rate: float,
        randomness: np.random.Generator,
    ) -> None:
        """Keep the shards and draw the weights.

        Args:
            images_MSP: float32 in [0, 1]; shards of one size.
            labels_MS: int64 in [0, ``num_classes``).
            num_classes: of the projections.
            width: hidden units of a teacher.
            learning_rate: of Adam.
            randomness: of weights, and later of batches.
        """
        self._images_MSP, self._labels_MS = images_MSP, labels_MS
        self._randomness = randomness
        count, _, pixels = images_MSP.shape

        def weights(*shape: int, fan_in: int) -> Tensor:
            values = randomness.standard_normal((count, *shape), dtype=np.float32)
            drawn = torch.from_numpy(values / np.float32(math.sqrt(fan_in))).to(images_MSP.device)
            return drawn.requires_grad_()

        self._hidden_MPD = weights(pixels, width, fan_in=pixels)
        self._bias_M1D = weights(1, width, fan_in=pixels)
        self._class_MLD = weights(num_classes, width, fan_in=width)
        self._score_M1D = weights(1, width, fan_in=width)
        parameters = [self._hidden_MPD, self._bias_M1D, self._class_MLD, self._score_M1D]
        self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999))

    def train(self, samples_BP: Tensor, labels_B: Tensor, batch_size: int) -> None:
        """Take one step of every teacher, on so many of its images against the samples."""
        count = len(self._labels_MS)
        real_MB = self._logits(
            *draw_shard_batches(self._images_MSP, self._labels_MS, batch_size, self._randomness)
        )
        fake_MB = self._logits(samples_BP.expand(count, -1, -1), labels_B.expand(count, -1))
        losses_M = functional.softplus(-real_MB).mean(1) + functional.softplus(fake_MB).mean(1)
        self._optimizer.zero_grad()
        losses_M.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def sample_gradients(self, samples_BP: Tensor, labels_B: Tensor) -> Tensor:
        """Return (M, B, P): each teacher's gradient of -log D(sample), private; lower is realer."""
        count = len(self._labels_MS)
        inputs_MBP = samples_BP.expand(count, -1, -1).clone().requires_grad_()
        loss = functional.softplus(-self._logits(inputs_MBP, labels_B.expand(count, -1))).sum()
        (gradients_MBP,) = torch.autograd.grad(loss, inputs_MBP)
        return gradients_MBP

    def projected_gradients(
        self, samples_BP: Tensor, labels_B: Tensor, projection_PK: Tensor
    ) -> Tensor:
        """Return (M, B, K): the same, each projected by (P, K)."""
        return self.sample_gradients(samples_BP, labels_B) @ projection_PK

    def _logits(self, images_MBP: Tensor, labels_MB: Tensor) -> Tensor:
        hidden_MBD = functional.leaky_relu(
            torch.baddbmm(self._bias_M1D, images_MBP, self._hidden_MPD), NEGATIVE_SLOPE
        )
        index_MBD = labels_MB[:, :, None].expand(-1, -1, hidden_MBD.shape[2])
        projection_MBD = self._score_M1D + self._class_MLD.gather(1, index_MBD)
        logits_MB: Tensor = (hidden_MBD * projection_MBD).sum(2)
        return logits_MB
