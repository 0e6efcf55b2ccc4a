"""Critics alike with their parameters and Adam moments stacked, so that one operation serves all.

Shapes: K critics, B batch, C channels, H and W image, P parameters of a critic.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector

from fed_gswgan.models.conv_critic import ConvCritic
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training.critic_vector import from_vector, to_vector
from fed_gswgan.training.linear_layer import linear_layer
from fed_gswgan.training.patch_layer import patch_layer
from fed_gswgan.training.piecewise_linear_gradient import (
    AsLayer,
    is_piecewise_linear,
    piecewise_linear_gradient,
)
from fed_gswgan.training.sample_gradient import sample_gradient
from fed_gswgan.training_config import CriticConfig

Member = tuple[nn.Module, torch.optim.Adam]


class StackedCritics:
    """K critics and their optimizers, copied; ``write_back`` gives them what the copies became.

    Args:
        members: each with the optimizer that ``critic_optimizer`` made for it.
        config: by which all are trained.
        device: of the copies.

    Raises:
        ValueError: the members differ, or their gradient is not written out.
    """

    def __init__(
        self, members: Sequence[Member], config: CriticConfig, device: torch.device
    ) -> None:
        critic, optimizer = members[0]
        if any(_kind(*member) != _kind(critic, optimizer) for member in members):
            raise ValueError("critics and optimizers must be alike to be trained at once")
        if not is_piecewise_linear(critic):
            raise ValueError(
                f"{type(critic).__name__} must have a gradient that is written out "
                "(is_piecewise_linear) to be trained with others at once"
            )
        self._members, self._config = members, config
        self._critic = copy.deepcopy(critic).to(device)
        as_layer = patch_layer if device.type == "cuda" else linear_layer
        self._written_out = _WrittenOutGradient(self._critic, config, as_layer)
        self._adam = optimizer.param_groups[0]
        vectors, steps = zip(*(_vector(*member) for member in members), strict=True)
        stacked_3KP = torch.from_numpy(np.stack(vectors, axis=1)).to(device)
        self._weights_KP, self._first_KP, self._second_KP = stacked_3KP
        self._steps_K1 = torch.tensor(steps, dtype=torch.float64, device=device)[:, None]

    def step(
        self, images_KBCHW: Tensor, samples_KBCHW: Tensor, labels_KB: Tensor, mix_KB: Tensor
    ) -> None:
        """Take one step with each critic on its own batch."""
        inputs = images_KBCHW, samples_KBCHW, labels_KB, mix_KB
        weights = {f"critic.{name}": stack for name, stack in self._parameters().items()}
        gradient = _of_each(self._written_out, weights, *inputs)
        in_order = [gradient[name].flatten(1) for name, _ in self._critic.named_parameters()]
        self._adam_step(torch.cat(in_order, dim=1))

    def sample_gradient(self, samples_KBCHW: Tensor, labels_KB: Tensor) -> Tensor:
        """Return each critic's at its own samples, of their shape; private until sanitized."""
        weights = self._parameters()

        def scores_KB(samples_KBCHW: Tensor, labels_KB: Tensor) -> Any:
            return _of_each(self._critic, weights, samples_KBCHW, labels_KB)

        # A score depends on its own critic and row alone, so the sum of all gives each gradient.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return sample_gradient(scores_KB, samples_KBCHW, labels_KB, self._config.critic_compute)

    def write_back(self) -> None:
        """Put weights, moments and numbers of steps into the members."""
        state = torch.stack([self._weights_KP, self._first_KP, self._second_KP], dim=1)
        for member, vector_3P, steps in zip(
            self._members, state.cpu().numpy(), self._steps_K1[:, 0].tolist(), strict=True
        ):
            from_vector(*member, vector_3P, int(steps))

    def _parameters(self) -> dict[str, Tensor]:
        """Return views of the stacked weights by name, (K, ...) each."""
        named, start = {}, 0
        for name, parameter in self._critic.named_parameters():
            stop = start + parameter.numel()
            named[name] = self._weights_KP[:, start:stop].unflatten(1, parameter.shape)
            start = stop
        return named

    @torch.no_grad()
    def _adam_step(self, gradient_KP: Tensor) -> None:
        """Step by Adam, each critic by its own count of steps.

        Source: Adam, arXiv 1412.6980, algorithm 1, computed in ``torch.optim.Adam``'s order.
        """
        rate, (beta1, beta2) = self._adam["lr"], self._adam["betas"]
        self._steps_K1 += 1
        rates_K1 = (rate / (1 - beta1**self._steps_K1)).float()
        roots_K1 = (1 - beta2**self._steps_K1).sqrt().float()
        self._first_KP.lerp_(gradient_KP, 1 - beta1)
        self._second_KP.mul_(beta2).addcmul_(gradient_KP, gradient_KP, value=1 - beta2)
        divisors_KP = (self._second_KP.sqrt() / roots_K1).add_(self._adam["eps"])
        self._weights_KP -= rates_K1 * self._first_KP / divisors_KP


class _WrittenOutGradient(nn.Module):
    """The gradient as a module's output, so that it can be taken at other parameters."""

    def __init__(
        self, critic: MLPCritic | ConvCritic, config: CriticConfig, as_layer: AsLayer
    ) -> None:
        super().__init__()
        self.critic, self._config, self._as_layer = critic, config, as_layer

    def forward(
        self, images_BCHW: Tensor, samples_BCHW: Tensor, labels_B: Tensor, mix_B: Tensor
    ) -> dict[str, Tensor]:
        """Return the gradient by parameter name."""
        return piecewise_linear_gradient(
            self.critic, images_BCHW, samples_BCHW, labels_B, mix_B, self._config, self._as_layer
        )


def _of_each(module: nn.Module, weights: dict[str, Tensor], *inputs: Tensor) -> Any:
    """Return the module's output for each set of weights and its own inputs, stacked."""

    def of_one(weights: dict[str, Tensor], *inputs: Tensor) -> Any:
        return functional_call(module, weights, inputs)

    return vmap(of_one)(weights, *inputs)


def _kind(critic: nn.Module, optimizer: torch.optim.Adam) -> tuple[Any, ...]:
    """Return what must be the same for critics to be stacked."""
    adam = {key: optimizer.param_groups[0][key] for key in ("lr", "betas", "eps")}
    return type(critic), {name: p.shape for name, p in critic.named_parameters()}, adam


def _vector(critic: nn.Module, optimizer: torch.optim.Adam) -> tuple[np.ndarray, int]:
    """Return float32 (3, P) and the number of steps, also of a critic that never took one."""
    vector_3P, steps = to_vector(critic, optimizer)
    if steps == 0:
        weights_P = parameters_to_vector(critic.parameters()).detach().numpy()
        vector_3P = np.stack([weights_P, np.zeros_like(weights_P), np.zeros_like(weights_P)])
    return vector_3P, steps
