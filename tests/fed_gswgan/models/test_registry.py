import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    sample_gradient,
    train_critic,
    warm_start,
)
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec, spec_of
from fed_gswgan.models.registry import (
    CRITICS,
    GENERATORS,
    GeneratorSettings,
    build_critic,
    build_generator,
    initial_weights_from,
    load_state_vector,
    parameter_count,
    to_state_vector,
)
from fed_gswgan.models.trainer import GeneratorTrainer
from tests.fed_gswgan.colour_images import ColourSource

SPEC = DataSpec(IMAGE_SHAPE, 3)


def generator_config(name):
    return GeneratorSettings(generator=name, generator_width=4, latent_dim=6)


def critic_config(name):
    return CriticSettings(critic=name, critic_width=4, critic_steps=2)


def build(name, seed=0, spec=SPEC):
    if name in GENERATORS:
        return build_generator(generator_config(name), spec, seed)
    return build_critic(critic_config(name), spec, seed)


NETWORKS = [*GENERATORS, *CRITICS]


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone(name):
    before = torch.get_rng_state()
    first = build(name, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert np.array_equal(to_state_vector(first), to_state_vector(build(name, seed=7)))
    assert not np.array_equal(to_state_vector(first), to_state_vector(build(name, seed=8)))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_vector_loaded_into_another_network_gives_the_same_weights_and_output(name):
    one, other = build(name, seed=0).eval(), build(name, seed=1).eval()
    inputs = torch.rand(2, 6) if name in GENERATORS else torch.rand(2, *IMAGE_SHAPE)
    vector, labels = to_state_vector(one), torch.tensor([0, 2])
    assert (vector.dtype, vector.ndim) == (np.float32, 1)
    assert not torch.equal(one(inputs, labels), other(inputs, labels))
    load_state_vector(other, vector)
    assert torch.equal(one(inputs, labels), other(inputs, labels))
    load_state_vector(other, vector + 1)
    assert np.array_equal(to_state_vector(one), vector)
    with pytest.raises(ValueError, match=r"state vector has shape \(3,\), must be"):
        load_state_vector(one, np.zeros(3, np.float32))


def test_the_global_generator_is_restored_after_an_error_and_seeds_have_63_bits():
    def fail():
        with initial_weights_from(2**63 - 1):
            torch.rand(1)
            raise ZeroDivisionError

    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # 3 x 2 weights and 2 biases, then 2 x 1 and 1
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), 11),
        # 784 x 4 + 4, 4 x 4 + 4, 4 + 1, 3 x 4
        (build("mlp"), 3177),
        # 3 x 6; 12 x 392 + 392; 8 x 4 x 9 + 4; 4 x 2 x 9 + 2; 2 x 9 + 1
        (build("slim"), 5499),
        (GENERATORS["dcgan"](IMAGE_SHAPE, 10, 10, 64), 1_112_613),
        (GENERATORS["resnet"](IMAGE_SHAPE, 10, 10, 64), 3_826_277),
        (CRITICS["conv"](IMAGE_SHAPE, 10, 64), 1_071_105),
    ],
)
def test_parameter_count(network, parameters):
    assert parameter_count(network) == parameters


COLOURS = ColourSource()
COLOUR_SPEC = spec_of(COLOURS)


@pytest.mark.parametrize("generator_name", GENERATORS)
@pytest.mark.parametrize("critic_name", CRITICS)
def test_networks_train_and_sample_in_colour(generator_name, critic_name):
    config, shard = critic_config(critic_name), COLOURS.shard("a")
    critic = build(critic_name, spec=COLOUR_SPEC)
    generator = build(generator_name, spec=COLOUR_SPEC)
    before = to_state_vector(critic), to_state_vector(generator)
    trainer = GeneratorTrainer(generator, generator_config(generator_name))
    optimizer = critic_optimizer(critic, config)
    latents, labels = torch.ones(4, 6), torch.tensor([0, 1, 0, 1])
    samples = trainer.samples(latents, labels)
    assert samples.shape == (4, 3, 32, 32)
    assert 0 <= samples.min() < samples.max() <= 1
    randomness = np.random.default_rng(0)
    train_critic(critic, optimizer, shard, samples[None], labels[None], config, randomness)
    gradient = sample_gradient(critic, samples, labels)
    assert gradient.shape == samples.shape
    trainer.step(latents, labels, gradient)
    assert not np.array_equal(to_state_vector(critic), before[0])
    assert not torch.equal(trainer.samples(latents, labels), samples)
    assert np.isfinite(to_state_vector(generator)).all()


@pytest.mark.parametrize("critic_name", CRITICS)
def test_a_warm_start_draws_samples_in_the_shape_of_the_shard(critic_name):
    config = CriticSettings(critic=critic_name, critic_width=4, warm_start_steps=1)
    critic = build(critic_name, spec=COLOUR_SPEC)
    before, randomness = to_state_vector(critic), np.random.default_rng(0)
    optimizer = critic_optimizer(critic, config)
    warm_start(critic, optimizer, COLOURS.shard("a"), 2, config, randomness)
    assert not np.array_equal(to_state_vector(critic), before)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 20, 12), (1, 8, 28), (3, 32, 64)])
@pytest.mark.parametrize("name", NETWORKS)
def test_height_and_width_may_be_any_multiples_of_four(name, shape):
    network = build(name, spec=DataSpec(shape, 3)).eval()
    if name in GENERATORS:
        assert network(torch.ones(2, 6), torch.tensor([0, 2])).shape == (2, *shape)
    else:
        assert network(torch.ones(2, *shape), torch.tensor([0, 2])).shape == (2,)


@pytest.mark.parametrize("name", [*GENERATORS, "conv"])
@pytest.mark.parametrize("shape", [(1, 30, 28), (1, 28, 30), (3, 0, 4)])
def test_another_height_or_width_is_refused_with_the_rule(name, shape):
    with pytest.raises(ValueError, match=r"image_shape=.* height and width divisible by 4"):
        build(name, spec=DataSpec(shape, 3))


def test_the_mlp_critic_scores_images_of_any_shape():
    critic = build("mlp", spec=DataSpec((2, 5, 7), 3))
    assert critic(torch.ones(2, 2, 5, 7), torch.tensor([0, 2])).shape == (2,)


# Of width 4, as before networks took an image shape: another order or size changes recorded runs.
LAYERS_OF_28X28 = {
    "slim": lambda: [
        nn.Embedding(3, 6),
        nn.init.normal_(torch.empty(3, 6), std=0.5),  # in place of the embedding's own
        nn.Linear(12, 8 * 7 * 7),
        nn.Conv2d(8, 4, 3),
        nn.Conv2d(4, 2, 3),
        nn.Conv2d(2, 1, 3),
    ],
    "dcgan": lambda: [
        nn.Embedding(3, 6),
        nn.Linear(12, 16 * 4 * 4),
        nn.ConvTranspose2d(16, 8, 5),
        nn.ConvTranspose2d(8, 4, 5),
        nn.ConvTranspose2d(4, 1, 6),
    ],
    "conv": lambda: [
        nn.Conv2d(1, 4, 5),
        nn.Conv2d(4, 8, 5),
        nn.Conv2d(8, 16, 5),
        nn.Linear(16 * 4 * 4, 1),
        nn.Embedding(3, 16 * 4 * 4),
    ],
}


@pytest.mark.parametrize("name", LAYERS_OF_28X28)
def test_first_weights_of_28x28_are_drawn_layer_by_layer(name):
    with initial_weights_from(3):
        layers = LAYERS_OF_28X28[name]()
    if name == "slim":
        embedding, weights, *layers = layers
        embedding.weight.data = weights
        layers = [embedding, *layers]
    expected = np.concatenate([to_state_vector(layer) for layer in layers])
    assert np.array_equal(to_state_vector(build(name, seed=3)), expected)
