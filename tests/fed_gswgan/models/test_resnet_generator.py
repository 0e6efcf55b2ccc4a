import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fed_gswgan.models import resnet_generator
from fed_gswgan.models.resnet_generator import ResNetGenerator
from tests.fed_gswgan.models.conftest import LATENT_DIM, draw_latents, seeded


def build(width=2):
    return seeded(ResNetGenerator, width=width)


def snapshot(generator):
    return {name: value.clone() for name, value in generator.state_dict().items()}


def test_power_iteration_does_not_depend_on_the_latents():
    generator = build().train()
    twin = copy.deepcopy(generator)
    generator(draw_latents(3), torch.arange(3))
    twin(torch.zeros(1, LATENT_DIM), torch.tensor([9]))
    state = twin.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())


def test_eval_regenerates_the_samples_it_sent_with_a_gradient():
    generator, latents, labels = build().eval(), draw_latents(3), torch.tensor([0, 1, 2])
    before = snapshot(generator)
    with torch.no_grad():
        sent = generator(latents, labels)
    regenerated = generator(latents, labels)
    assert torch.equal(regenerated, sent)
    regenerated.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert generator.dense.parametrizations.weight.original.grad.norm() > 0


def test_train_forward_moves_the_vectors_even_without_gradients():
    generator = build().train()
    before = snapshot(generator)
    with torch.no_grad():
        generator(draw_latents(1), torch.tensor([0]))
    moved = {n for n, value in generator.state_dict().items() if not torch.equal(value, before[n])}
    assert moved
    assert all(name.endswith(("._u", "._v")) for name in moved)


def test_one_train_forward_after_a_step_brings_the_norm_back_to_one():
    # The last layer has one output, so its weights are a vector and one power iteration is exact.
    generator, latents, labels = build().eval(), draw_latents(4), torch.arange(4)
    generator(latents, labels).square().sum().backward()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter -= 0.1 * parameter.grad.sign()
    assert generator.to_pixels.weight.norm().item() > 1.1
    generator.train()
    with torch.no_grad():
        generator(latents[:1], labels[:1])
    assert generator.eval().to_pixels.weight.norm().item() == pytest.approx(1, abs=1e-5)


def test_state_dict_restores_the_samples_exactly():
    generator, latents, labels = build(), draw_latents(2), torch.tensor([0, 1])
    generator.train()(latents, labels)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        restored = ResNetGenerator(LATENT_DIM, 10, 2)
    restored.load_state_dict(snapshot(generator))
    samples = generator.eval()(latents, labels)
    assert torch.equal(restored.eval()(latents, labels), samples)


def doubled_and_convolved_one_after_the_other(features_BCHW, layer):
    return layer(functional.interpolate(features_BCHW, scale_factor=2.0, mode="nearest"))


def test_doubling_folded_into_the_convolution_is_the_same_map():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 3, padding=1).double()
        features = torch.randn(2, 3, 4, 7, dtype=torch.double)
    found = resnet_generator._doubled_and_convolved(features, layer)
    expected = doubled_and_convolved_one_after_the_other(features, layer)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_folding_changes_neither_samples_nor_gradients_nor_spectral_norm(monkeypatch):
    generator = build(width=4).double().train()
    twin = copy.deepcopy(generator)
    latents, labels = draw_latents(3).double(), torch.arange(3)
    samples = generator(latents, labels)
    samples.square().sum().backward()
    one_after_the_other = doubled_and_convolved_one_after_the_other
    monkeypatch.setattr(resnet_generator, "_doubled_and_convolved", one_after_the_other)
    expected = twin(latents, labels)
    expected.square().sum().backward()
    torch.testing.assert_close(samples, expected, rtol=1e-10, atol=1e-12)
    for (name, one), other in zip(generator.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-11, msg=name)
    assert all(map(torch.equal, snapshot(generator).values(), snapshot(twin).values()))
