"""Networks by name, with initial weights that follow from a seed, and as flat state vectors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.critics import ConvCritic, MLPCritic
from fed_gswgan.models.generators import DCGANGenerator, ResNetGenerator, SlimGenerator
from fed_gswgan.settings import NonNegative, Positive, Settings, Share

GENERATORS = {"slim": SlimGenerator, "dcgan": DCGANGenerator, "resnet": ResNetGenerator}
CRITICS: Mapping[str, Callable[..., nn.Module]] = {"mlp": MLPCritic, "conv": ConvCritic}


# Wider networks fit no machine that this is for.
MOST_CHANNELS, MOST_HIDDEN = 512, 4096
LearningRate = Annotated[float, Field(gt=0, le=1)]  # Adam moves a weight by about so much a step


class AdamSettings(Settings):
    """Moments of both Adam optimizers."""

    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """of both Adam optimizers"""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.9


class GeneratorSettings(AdamSettings):
    """The generator, its optimizer, and how samples are drawn from it."""

    generator: Literal["slim", "dcgan", "resnet"] = "slim"
    """slim, dcgan or resnet (the paper's)"""
    generator_width: Annotated[int, Field(ge=2, le=MOST_CHANNELS)] = 32
    """channels"""
    latent_dim: Annotated[int, Field(ge=1, le=MOST_HIDDEN)] = 32
    latent_kind: Literal["bernoulli", "normal"] = "normal"
    """normal, or bernoulli (the paper's zeros and ones)"""
    generator_learning_rate: LearningRate = 2e-3
    generator_learning_rate_end_factor: Share = 1.0
    """of it at the last round, falling from the middle one on"""
    ema_halflife_steps: NonNegative = 10.0
    """of the moving average that samples are taken from; 0: none"""
    sample_contrast: Positive = 1.0
    """of samples: > 1 makes greys lighter or darker, 1 leaves them"""


class CriticNetworkSettings(Settings):
    """The critic's network."""

    critic: str = "mlp"
    """mlp, conv (the paper's), or package.module:Class"""
    critic_width: Annotated[int, Field(ge=1, le=MOST_HIDDEN)] = 256
    """hidden units, or channels of the first convolution"""
    class_embedding_stddev: NonNegative = 0.05
    """of its first weights, mlp only; 1 is usual"""


def build_generator(config: GeneratorSettings, spec: DataSpec, seed: int) -> nn.Module:
    """Return a generator (latents_BZ, labels_B) -> samples_BCHW in [0, 1].

    Raises:
        ValueError: height or width of the images is not divisible by 4.
    """
    with initial_weights_from(seed):
        return GENERATORS[config.generator](
            spec.image_shape, config.latent_dim, spec.num_classes, config.generator_width
        )


def build_critic(config: CriticNetworkSettings, spec: DataSpec, seed: int) -> nn.Module:
    """Return a critic (images_BCHW, labels_B) -> scores_B.

    Raises:
        ValueError: ``conv``, and height or width of the images is not divisible by 4.
    """
    first_weights = (config.class_embedding_stddev,) if config.critic == "mlp" else ()
    with initial_weights_from(seed):
        return CRITICS[config.critic](
            spec.image_shape, spec.num_classes, config.critic_width, *first_weights
        )


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def initial_weights_from(seed: int) -> Iterator[None]:
    """Let layers built inside draw from ``seed``; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        yield


@torch.no_grad()
def to_state_vector(network: nn.Module) -> np.ndarray:
    """Return float32 (P,): parameters, and buffers that are real numbers."""
    parts = [tensor.reshape(-1) for tensor in _tensors(network)]
    return torch.cat(parts).numpy().astype(np.float32)


@torch.no_grad()
def load_state_vector(network: nn.Module, vector_P: np.ndarray) -> None:
    """Put a vector back into a network of the same shape.

    Raises:
        ValueError: the vector belongs to a network of another size.
    """
    expected = sum(tensor.numel() for tensor in _tensors(network))
    if vector_P.shape != (expected,):
        raise ValueError(f"state vector has shape {vector_P.shape}, must be {(expected,)}")
    values_P = torch.from_numpy(np.array(vector_P))
    start = 0
    for tensor in _tensors(network):
        tensor.copy_(values_P[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return [t for t in network.state_dict().values() if t.is_floating_point()]
