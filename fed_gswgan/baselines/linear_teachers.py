"""Many discriminators side by side, each of them one linear score for each class.

Shapes: M teachers, S images of a shard, R images of a teacher's batch, B samples, P pixels,
L classes, K coordinates.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fed_gswgan.baselines.shard_batches import draw_shard_batches


class LinearTeachers:
    """A teacher's logit is <template of the class, image> + offset of the class.

    What a class's template learns from three images of it points where other teachers' templates
    point, so votes agree after a few steps. Its gradient with respect to a sample is a multiple of
    the template, and so is every projection of it: nothing of the size of all gradients is needed.
    No operation mixes two teachers: a template depends on its own shard and on samples.
    """

    def __init__(
        self,
        images_MSP: Tensor,
        labels_MS: Tensor,
        num_classes: int,
        learning_rate: float,
        randomness: np.random.Generator,
    ) -> None:
        """Keep the shards; templates begin at zero.

        Args:
            images_MSP: float32 in [0, 1]; shards of one size.
            labels_MS: int64 in [0, ``num_classes``).
            num_classes: templates of a teacher.
            learning_rate: of Adam.
            randomness: of batches.
        """
        self._images_MSP, self._labels_MS = images_MSP, labels_MS
        self._randomness = randomness
        count, _, pixels = images_MSP.shape
        self._templates_MLP = images_MSP.new_zeros(count, num_classes, pixels)
        self._offsets_ML = images_MSP.new_zeros(count, num_classes)
        parameters = [self._templates_MLP, self._offsets_ML]
        self._optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.999))

    @torch.no_grad()
    def train(self, samples_BP: Tensor, labels_B: Tensor, batch_size: int) -> None:
        """Take one step of every teacher, on so many of its images against the samples.

        The logistic loss is convex in a template; its gradient is written out: of an image or
        sample x it is (D(x) - 1 for an image, D(x) for a sample) x, a mean over each.
        """
        images_MRP, classes_MR = draw_shard_batches(
            self._images_MSP, self._labels_MS, batch_size, self._randomness
        )
        real_MR = -torch.sigmoid(-self._logits(images_MRP, classes_MR)) / batch_size
        real_MLR = self._by_class(real_MR, classes_MR)
        fake_MB = torch.sigmoid(self._logits(samples_BP, labels_B)) / len(labels_B)
        fake_MLB = self._by_class(fake_MB, labels_B.expand(len(fake_MB), -1))
        self._templates_MLP.grad = torch.bmm(real_MLR, images_MRP) + fake_MLB @ samples_BP
        self._offsets_ML.grad = real_MLR.sum(2) + fake_MLB.sum(2)
        self._optimizer.step()

    @torch.no_grad()
    def projected_gradients(
        self, samples_BP: Tensor, labels_B: Tensor, projection_PK: Tensor
    ) -> Tensor:
        """Return (M, B, K): each teacher's gradient of -log D(sample), projected; private."""
        missed_MB = torch.sigmoid(-self._logits(samples_BP, labels_B))
        projected_MLK = self._templates_MLP @ projection_PK
        return -missed_MB[:, :, None] * projected_MLK[:, labels_B]

    def _logits(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (M, B) of images (B, P) that all teachers see, or (M, B, P), and their labels."""
        logits_MBL = images @ self._templates_MLP.mT + self._offsets_ML[:, None]
        index_MB1 = labels.expand(len(logits_MBL), -1)[:, :, None]
        return logits_MBL.gather(2, index_MB1)[:, :, 0]

    def _by_class(self, values_MB: Tensor, labels_MB: Tensor) -> Tensor:
        """Return (M, L, B): each value in the row of its class, and 0 in the others."""
        one_hot_MBL = functional.one_hot(labels_MB, self._offsets_ML.shape[1])
        return (one_hot_MBL * values_MB[:, :, None]).mT
