import numpy as np
import pytest
import torch

from fed_gswgan.models.build import build_critic, build_generator
from fed_gswgan.models.state_vector import load_state_vector, to_state_vector
from fed_gswgan.training_config import CriticConfig, GeneratorConfig


@pytest.mark.parametrize("name", ["slim", "dcgan", "resnet"])
def test_a_network_that_gets_anothers_vector_gives_the_same_output(name):
    config = GeneratorConfig(generator=name, generator_width=4, latent_dim=3)
    one, other = (
        build_generator(config, 5, seed=0).eval(),
        build_generator(config, 5, seed=1).eval(),
    )
    latents, labels = (
        torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 4]),
    )
    assert not torch.equal(one(latents, labels), other(latents, labels))
    load_state_vector(other, to_state_vector(one))
    assert torch.equal(one(latents, labels), other(latents, labels))


def test_a_vector_is_float32_and_a_copy():
    critic = build_critic(CriticConfig(critic_width=4), 5, seed=0)
    vector = to_state_vector(critic)
    assert (vector.dtype, vector.ndim) == (np.float32, 1)
    load_state_vector(critic, vector + 1)
    assert np.array_equal(to_state_vector(critic), vector + 1)


def test_a_vector_of_another_size_is_refused():
    critic = build_critic(CriticConfig(critic_width=4), 5, seed=0)
    with pytest.raises(ValueError, match=r"state vector has shape \(3,\), must be"):
        load_state_vector(critic, np.zeros(3, np.float32))
