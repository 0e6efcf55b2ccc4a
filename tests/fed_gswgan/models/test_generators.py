import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.models import generators
from fed_gswgan.models.generators import PixelNorm, ResNetGenerator
from fed_gswgan.models.registry import GENERATORS
from tests.fed_gswgan.models.conftest import LATENT_DIM, draw_latents, seeded


@pytest.fixture(params=GENERATORS)
def build(request):
    kind = GENERATORS[request.param]
    return lambda num_classes=10: seeded(kind, IMAGE_SHAPE, LATENT_DIM, num_classes, 4)


@pytest.mark.parametrize("num_classes", [10, 62])
def test_samples_are_images_in_unit_range(build, num_classes):
    samples = build(num_classes)(draw_latents(num_classes), torch.arange(num_classes))
    assert samples.shape == (num_classes, *IMAGE_SHAPE)
    assert samples.dtype == torch.float32
    assert 0 <= samples.min() < samples.max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_depends_on_its_own_latent_and_label_alone(build, training):
    # Copies, since a forward in train mode may move the vectors of spectral norm.
    generator = build().train(training)
    twin, third = copy.deepcopy(generator), copy.deepcopy(generator)
    latents, labels = draw_latents(2).requires_grad_(), torch.tensor([3, 4])
    samples = generator(latents, labels)
    samples[0].sum().backward()
    assert latents.grad[0].norm() > 0
    assert latents.grad[1].eq(0).all()
    changed_latents, changed_labels = latents.detach().clone(), torch.tensor([3, 7])
    changed_latents[1] = 5.0
    changed = twin(changed_latents, changed_labels)
    assert torch.equal(changed[0], samples[0])
    assert not torch.allclose(changed[1], samples[1])
    torch.testing.assert_close(third(latents[:1], labels[:1]), samples[:1])


def test_label_and_latent_both_change_the_sample(build):
    generator = build()
    by_label = generator(draw_latents(1).expand(10, -1), torch.arange(10))
    by_latent = generator(draw_latents(10), torch.zeros(10, dtype=torch.int64))
    assert torch.pdist(by_label.flatten(1)).min() > 1e-2
    assert torch.pdist(by_latent.flatten(1)).min() > 1e-2


def test_every_parameter_receives_a_gradient(build):
    generator = build(num_classes=2)
    generator(draw_latents(4), torch.tensor([0, 1, 0, 1])).square().sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in generator.parameters())


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 6)])
def test_pixel_norm_makes_the_mean_square_over_channels_one(shape):
    features = 10 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mean_square = PixelNorm()(features).square().mean(dim=1)
    torch.testing.assert_close(mean_square, torch.ones_like(mean_square))
    # Mean square of (1, 7) is 25, so the vector is divided by 5.
    torch.testing.assert_close(PixelNorm()(torch.tensor([[1.0, 7.0]])), torch.tensor([[0.2, 1.4]]))


def test_pixel_norm_of_zero_is_zero_with_a_finite_gradient():
    features = torch.zeros(1, 4, requires_grad=True)
    normalised = PixelNorm()(features)
    normalised.sum().backward()
    assert normalised.eq(0).all()
    assert features.grad.isfinite().all()


def build_resnet(width=2):
    return seeded(ResNetGenerator, IMAGE_SHAPE, LATENT_DIM, 10, width)


def snapshot(generator):
    return {name: value.clone() for name, value in generator.state_dict().items()}


def test_power_iteration_moves_without_gradients_whatever_the_latents():
    generator = build_resnet().train()
    twin, before = copy.deepcopy(generator), snapshot(generator)
    with torch.no_grad():
        generator(draw_latents(3), torch.arange(3))
    twin(torch.zeros(1, LATENT_DIM), torch.tensor([9]))
    state = generator.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in twin.state_dict().items())
    moved = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.endswith(("._u", "._v")) for name in moved)


def test_eval_regenerates_the_samples_it_sent_with_a_gradient():
    generator, latents, labels = build_resnet().eval(), draw_latents(3), torch.tensor([0, 1, 2])
    before = snapshot(generator)
    with torch.no_grad():
        sent = generator(latents, labels)
    regenerated = generator(latents, labels)
    assert torch.equal(regenerated, sent)
    regenerated.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert generator.dense.parametrizations.weight.original.grad.norm() > 0


def test_one_train_forward_after_a_step_brings_the_norm_back_to_one():
    # The last layer has one output, so its weights are a vector and one power iteration is exact.
    generator, latents, labels = build_resnet().eval(), draw_latents(4), torch.arange(4)
    generator(latents, labels).square().sum().backward()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter -= 0.1 * parameter.grad.sign()
    assert generator.to_pixels.weight.norm().item() > 1.1
    generator.train()
    with torch.no_grad():
        generator(latents[:1], labels[:1])
    assert generator.eval().to_pixels.weight.norm().item() == pytest.approx(1, abs=1e-5)


def doubled_and_convolved_one_after_the_other(features_BCHW, layer):
    return layer(functional.interpolate(features_BCHW, scale_factor=2.0, mode="nearest"))


def test_doubling_folded_into_the_convolution_is_the_same_map(monkeypatch):
    layer = seeded(nn.Conv2d, 3, 5, 3, 1, 1).double()
    features = torch.randn(2, 3, 4, 7, generator=torch.Generator().manual_seed(0)).double()
    found = generators._doubled_and_convolved(features, layer)
    one_after_the_other = doubled_and_convolved_one_after_the_other
    expected = one_after_the_other(features, layer)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    generator = build_resnet(width=4).double().train()
    twin = copy.deepcopy(generator)
    latents, labels = draw_latents(3).double(), torch.arange(3)
    samples = generator(latents, labels)
    samples.square().sum().backward()
    monkeypatch.setattr(generators, "_doubled_and_convolved", one_after_the_other)
    expected = twin(latents, labels)
    expected.square().sum().backward()
    torch.testing.assert_close(samples, expected, rtol=1e-10, atol=1e-12)
    for (name, one), other in zip(generator.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-11, msg=name)
    assert all(map(torch.equal, snapshot(generator).values(), snapshot(twin).values()))
