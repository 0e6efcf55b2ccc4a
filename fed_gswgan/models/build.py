"""From settings to networks, with initial weights that depend on a seed alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from fed_gswgan.models.conv_critic import ConvCritic
from fed_gswgan.models.dcgan_generator import DCGANGenerator
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.models.resnet_generator import ResNetGenerator
from fed_gswgan.models.slim_generator import SlimGenerator
from fed_gswgan.training_config import CriticConfig, GeneratorConfig

GENERATORS = {"slim": SlimGenerator, "dcgan": DCGANGenerator, "resnet": ResNetGenerator}
CRITICS: Mapping[str, Callable[..., nn.Module]] = {"mlp": MLPCritic, "conv": ConvCritic}


def build_generator(config: GeneratorConfig, num_classes: int, seed: int) -> nn.Module:
    """Return a generator (latents_BZ, labels_B) -> samples_BCHW in [0, 1]."""
    with initial_weights_from(seed):
        return GENERATORS[config.generator](config.latent_dim, num_classes, config.generator_width)


def build_critic(config: CriticConfig, num_classes: int, seed: int) -> nn.Module:
    """Return a critic (images_BCHW, labels_B) -> scores_B."""
    first_weights = (config.class_embedding_stddev,) if config.critic == "mlp" else ()
    with initial_weights_from(seed):
        return CRITICS[config.critic](num_classes, config.critic_width, *first_weights)


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def initial_weights_from(seed: int) -> Iterator[None]:
    """Let layers built inside draw from ``seed``; the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        yield
