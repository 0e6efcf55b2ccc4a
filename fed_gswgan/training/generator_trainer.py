"""The server's generator: samples out, a step from the combined gradient, a moving average.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.training_config import AdamConfig, GeneratorConfig


class GeneratorTrainer:
    """Holds what persists on the server: generator, its optimizer and the EMA generator."""

    def __init__(self, generator: nn.Module, config: GeneratorConfig, adam: AdamConfig) -> None:
        self._config = config
        # Sampling is a pure function in eval mode: what was sent is regenerated to the bit.
        self.generator = generator.eval()
        self.ema_generator = copy.deepcopy(generator).eval()
        self.optimizer = torch.optim.Adam(
            generator.parameters(),
            lr=config.generator_learning_rate,
            betas=(adam.adam_beta1, adam.adam_beta2),
        )
        halflife = config.ema_halflife_steps
        self.ema_decay = 0.5 ** (1 / halflife) if halflife > 0 else 0.0

    def networks(self) -> dict[str, nn.Module]:
        """Return every network that a checkpoint must hold, by name."""
        return {"generator": self.generator, "ema": self.ema_generator}

    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """Return every optimizer that a checkpoint must hold, by name."""
        return {"optimizer": self.optimizer}

    def set_learning_rate(self, elapsed: float) -> None:
        """Set what ``generator-learning-rate`` has become after this share of all rounds.

        It stays until half of them have passed and falls in a line, to its end factor at 1, so that
        the noise of the last releases is averaged over more steps.
        """
        end_factor = self._config.generator_learning_rate_end_factor
        factor = 1 - (1 - end_factor) * max(0.0, 2 * elapsed - 1)
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.generator_learning_rate * factor

    @torch.no_grad()
    def samples(self, latents_BZ: Tensor, labels_B: Tensor) -> Tensor:
        """Return samples_BCHW in [0, 1] without a graph; the step regenerates them with one."""
        return self.generator(latents_BZ, labels_B)  # type: ignore[no-any-return]

    def learn(
        self,
        latents_BZ: Tensor,
        labels_B: Tensor,
        samples_BCHW: Tensor,
        gradient_BCHW: Tensor,
        randomness: np.random.Generator,
    ) -> float:
        """Make of a release what this trainer makes of it: the paper's, one step; nothing drawn.

        What is returned and the arguments are those of ``step``; ``samples_BCHW`` are the samples
        that were sent.
        """
        return self.step(latents_BZ, labels_B, gradient_BCHW)

    def step(self, latents_BZ: Tensor, labels_B: Tensor, gradient_BCHW: Tensor) -> float:
        """Send the combined gradient back through the generator and take one optimizer step.

        Args:
            latents_BZ: the latents of the samples that were sent.
            labels_B: their labels.
            gradient_BCHW: combined sanitized gradient, a row a sample; the step uses its mean.

        Returns:
            L2 norm of the generator's parameter gradient.
        """
        samples_BCHW = self.generator(latents_BZ, labels_B)
        self.optimizer.zero_grad(set_to_none=True)
        samples_BCHW.backward(gradient_BCHW / len(gradient_BCHW))
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.generator.parameters() if p.grad is not None]
        )
        self.optimizer.step()
        self._advance_spectral_norm(latents_BZ[:1], labels_B[:1])
        self._update_ema()
        return float(norm)

    def follow(
        self,
        gradient_at: Callable[[Tensor, Tensor], Tensor],
        steps: int,
        batch_size: int,
        num_classes: int,
        randomness: np.random.Generator,
    ) -> float:
        """Take so many steps at samples of its own, and return the last gradient's norm.

        Args:
            gradient_at: (samples_BCHW, labels_B) -> gradient_BCHW; touches nobody's data.
            steps: how many.
            batch_size: B of each.
            num_classes: of the data set.
            randomness: draws latents, then labels.
        """
        norm = 0.0
        config = self._config
        for _ in range(steps):
            latents_BZ = draw_latents(batch_size, config.latent_dim, config.latent_kind, randomness)
            labels_B = draw_labels(batch_size, num_classes, randomness)
            gradient_BCHW = gradient_at(self.samples(latents_BZ, labels_B), labels_B)
            norm = self.step(latents_BZ, labels_B, gradient_BCHW)
        return norm

    @torch.no_grad()
    def _advance_spectral_norm(self, latents_BZ: Tensor, labels_B: Tensor) -> None:
        """Take one power iteration in layers with spectral norm; a forward in train mode does."""
        self.generator.train()
        self.generator(latents_BZ, labels_B)
        self.generator.eval()

    @torch.no_grad()
    def _update_ema(self) -> None:
        for averaged, current in zip(
            self.ema_generator.parameters(), self.generator.parameters(), strict=True
        ):
            averaged.lerp_(current, 1 - self.ema_decay)
        for copied, buffer in zip(
            self.ema_generator.buffers(), self.generator.buffers(), strict=True
        ):
            copied.copy_(buffer)


def draw_latents(count: int, latent_dim: int, kind: str, randomness: np.random.Generator) -> Tensor:
    """Return latents_BZ float32: Bernoulli(1/2) as in the paper, or standard normal."""
    shape = (count, latent_dim)
    if kind == "bernoulli":
        return torch.from_numpy(randomness.integers(0, 2, size=shape).astype(np.float32))
    return torch.from_numpy(randomness.standard_normal(shape, dtype=np.float32))


def draw_labels(count: int, num_classes: int, randomness: np.random.Generator) -> Tensor:
    """Return labels_B int64, uniform over the classes."""
    return torch.from_numpy(randomness.integers(0, num_classes, size=count))
