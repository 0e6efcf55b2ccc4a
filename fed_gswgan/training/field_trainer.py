"""A generator that steps along a gradient field: several steps a release, on samples of its own.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training.gradient_field import GradientField
from fed_gswgan.training_config import AdamConfig, FieldConfig, GeneratorConfig

FIELD_BETAS = (0.9, 0.99)


class FieldTrainer(GeneratorTrainer):
    """The generator, and the field that it follows.

    Args:
        generator: moved by the field alone.
        field: fitted to the releases.
        config: of the generator.
        adam: of the generator's optimizer.
        field_config: how the field is fitted, and how many steps the generator takes a release.
        num_classes: of the data set.
    """

    def __init__(
        self,
        generator: nn.Module,
        field: GradientField,
        config: GeneratorConfig,
        adam: AdamConfig,
        field_config: FieldConfig,
        num_classes: int,
    ) -> None:
        super().__init__(generator, config, adam)
        self.field = field
        self.field_optimizer = torch.optim.Adam(
            field.parameters(), lr=field_config.field_learning_rate, betas=FIELD_BETAS
        )
        self._field_config = field_config
        self._num_classes = num_classes

    def networks(self) -> dict[str, nn.Module]:
        """Return every network that a checkpoint must hold, by name."""
        return super().networks() | {"field": self.field}

    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """Return every optimizer that a checkpoint must hold, by name."""
        return super().optimizers() | {"field-optimizer": self.field_optimizer}

    def learn(
        self,
        latents_BZ: Tensor,
        labels_B: Tensor,
        samples_BCHW: Tensor,
        gradient_BCHW: Tensor,
        randomness: np.random.Generator,
    ) -> float:
        """Fit the field to one more release and follow it; return the last gradient's norm.

        Args:
            latents_BZ: of the samples that were sent.
            labels_B: their labels.
            samples_BCHW: the samples.
            gradient_BCHW: the combined release, a row a sample.
            randomness: draws the rows to fit, and the generator's samples.
        """
        config = self._field_config
        self.field.keep(samples_BCHW, labels_B, gradient_BCHW)
        self.field.fit(config.field_steps, self.field_optimizer, randomness)
        return self.follow(
            self.field.gradient,
            config.generator_steps_per_release,
            config.field_batch_size,
            self._num_classes,
            randomness,
        )
