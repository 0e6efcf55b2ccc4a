"""The generators that baselines choose from, by name."""

from torch import nn

from fed_gswgan.baselines.shallow_networks import ShallowGenerator
from fed_gswgan.models.generators import DCGANGenerator, SlimGenerator
from fed_gswgan.models.registry import initial_weights_from

GENERATORS = {"shallow": ShallowGenerator, "slim": SlimGenerator, "dcgan": DCGANGenerator}


def conditional_generator(
    name: str,
    image_shape: tuple[int, ...],
    latent_dim: int,
    num_classes: int,
    width: int,
    seed: int,
) -> nn.Module:
    """Return a generator (latents_BZ, labels_B) -> samples_BCHW in [0, 1], of seeded weights."""
    with initial_weights_from(seed):
        return GENERATORS[name](image_shape, latent_dim, num_classes, width)
