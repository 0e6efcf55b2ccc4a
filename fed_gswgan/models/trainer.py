"""Generator in training: samples, a step from a gradient at samples, a moving average.

Shapes: B batch, Z latent, C channels, H and W image.
"""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.seeding import SeedStream


class GeneratorTrainer:
    """Holds what persists on the server: generator, its optimizer and the EMA generator."""

    def __init__(self, generator: nn.Module, config: GeneratorSettings) -> None:
        self._config = config
        # Sampling is a pure function in eval mode: what was sent is regenerated to the bit.
        self.generator = generator.eval()
        self.ema_generator = copy.deepcopy(generator).eval()
        self.optimizer = torch.optim.Adam(
            generator.parameters(),
            lr=config.generator_learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
        )
        halflife = config.ema_halflife_steps
        self.ema_decay = 0.5 ** (1 / halflife) if halflife > 0 else 0.0

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights, moving average and Adam's moments."""
        return to_tensors(
            {"generator": self.generator, "ema": self.ema_generator}, {"optimizer": self.optimizer}
        )

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``; RuntimeError if it is of another network."""
        from_tensors(
            state,
            {"generator": self.generator, "ema": self.ema_generator},
            {"optimizer": self.optimizer},
        )

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
        pulled = (samples_BCHW * (gradient_BCHW / len(gradient_BCHW))).sum()
        return self.descend(pulled, latents_BZ[:1], labels_B[:1])

    def descend(self, loss: Tensor, latents_BZ: Tensor, labels_B: Tensor) -> float:
        """Take one optimizer step down a loss of the generator's samples.

        Args:
            loss: has a graph to the generator.
            latents_BZ: any latents, at least one.
            labels_B: their labels.

        Returns:
            L2 norm of the generator's parameter gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
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


def sampler_of(generator: nn.Module, config: GeneratorSettings) -> Callable[[Tensor, int], Tensor]:
    """Return a function (labels_B int64, seed) -> samples_BCHW float32 in [0, 1].

    A moving average of generators is unsure where a stroke ends, and so paints it grey; ink on
    paper hardly is. ``sample_contrast`` multiplies the logit of each pixel. Clients are asked
    about samples without it, and it costs no privacy.
    """

    @torch.no_grad()
    def sampler(labels_B: Tensor, seed: int) -> Tensor:
        randomness = SeedStream(seed).generator("sampling")
        latents_BZ = draw_latents(len(labels_B), config.latent_dim, config.latent_kind, randomness)
        generator.eval()
        samples_BCHW: Tensor = generator(latents_BZ, labels_B)
        return with_contrast(samples_BCHW, config.sample_contrast)

    return sampler


def with_contrast(samples_BCHW: Tensor, contrast: float) -> Tensor:
    """Return samples with the logit of each pixel, which lies in [0, 1], times ``contrast`` > 0."""
    return torch.sigmoid(contrast * torch.logit(samples_BCHW)) if contrast != 1 else samples_BCHW


def to_tensors(
    networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return the states of networks and optimizers as flat tensors, ``NAME/...``."""
    tensors = {}
    for prefix, network in networks.items():
        for name, tensor in network.state_dict().items():
            tensors[f"{prefix}/{name}"] = tensor.clone()
    for prefix, optimizer in optimizers.items():
        for position, state in optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                tensors[f"{prefix}/{position}/{name}"] = tensor.clone()
    return tensors


def from_tensors(
    tensors: Mapping[str, Tensor],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Load what ``to_tensors`` returned; RuntimeError if it is of other networks."""
    for prefix, network in networks.items():
        network.load_state_dict(_part(tensors, prefix))
    for prefix, optimizer in optimizers.items():
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, prefix).items():
            position, moment = name.split("/")
            moments.setdefault(int(position), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
