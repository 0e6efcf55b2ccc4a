import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.models.registry import (
    CRITICS,
    GENERATORS,
    build_critic,
    build_generator,
    initial_weights_from,
    load_state_vector,
    parameter_count,
    to_state_vector,
)
from fed_gswgan.training_config import CriticConfig, GeneratorConfig

LABELS = torch.tensor([0, 1, 2])


def generator_of(name, seed=0):
    config = GeneratorConfig(generator=name, generator_width=4, latent_dim=6)
    return build_generator(config, 3, seed)


def critic_of(name, seed=0):
    return build_critic(CriticConfig(critic=name, critic_width=4), 3, seed)


NETWORKS = [(generator_of, name) for name in GENERATORS] + [(critic_of, name) for name in CRITICS]


def same_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("build", "name"), NETWORKS)
def test_initial_weights_are_decided_by_the_seed_alone(build, name):
    first = build(name, seed=7)
    torch.rand(3)  # the global generator moves on
    assert same_state(first, build(name, seed=7))
    assert not same_state(first, build(name, seed=8))


@pytest.mark.parametrize(("build", "name"), NETWORKS)
def test_building_leaves_the_global_generator_alone(build, name):
    before = torch.get_rng_state()
    build(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_is_restored_after_an_error():
    def fail():
        with initial_weights_from(3):
            torch.rand(1)
            raise ZeroDivisionError

    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_generator_asked_for_is_built_and_draws_images(name):
    generator = generator_of(name)
    assert type(generator) is GENERATORS[name]
    assert (generator.latent_dim, generator.num_classes) == (6, 3)
    assert generator(torch.zeros(3, 6), LABELS).shape == (3, 1, 28, 28)


@pytest.mark.parametrize("name", CRITICS)
def test_the_critic_asked_for_is_built_and_scores_images(name):
    critic = critic_of(name)
    assert type(critic) is CRITICS[name]
    assert critic(torch.zeros(3, 1, 28, 28), LABELS).shape == (3,)


def test_a_seed_of_63_bits_is_taken():
    assert parameter_count(critic_of("mlp", seed=2**63 - 1)) > 0


def test_parameter_count_counts_every_number():
    # 3 x 2 weights and 2 biases, then 2 x 1 and 1
    assert parameter_count(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))) == 11


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # 784 x 4 + 4, 4 x 4 + 4, 4 + 1, 3 x 4
        (critic_of("mlp"), 3177),
        # 3 x 6; 12 x 392 + 392; 8 x 4 x 9 + 4; 4 x 2 x 9 + 2; 2 x 9 + 1
        (generator_of("slim"), 5499),
    ],
)
def test_parameter_count_of_the_small_networks_by_hand(network, parameters):
    assert parameter_count(network) == parameters


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
