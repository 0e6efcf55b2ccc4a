import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from fed_gswgan.models import generators
from fed_gswgan.models.generators import DCGANGenerator, PixelNorm, ResNetGenerator, SlimGenerator
from fed_gswgan.models.registry import GENERATORS
from tests.fed_gswgan.models.conftest import LATENT_DIM, draw_latents, seeded


@pytest.fixture(params=GENERATORS)
def build(request):
    return lambda num_classes=10: seeded(GENERATORS[request.param], num_classes, width=4)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("num_classes", [10, 62])
def test_samples_are_images_in_unit_range(build, rows, num_classes):
    generator = build(num_classes)
    samples = generator(draw_latents(rows), torch.full((rows,), num_classes - 1))
    assert samples.shape == (rows, 1, 28, 28)
    assert samples.dtype == torch.float32
    assert 0 <= samples.min() < samples.max() <= 1
    assert (generator.latent_dim, generator.num_classes) == (LATENT_DIM, num_classes)


@pytest.mark.parametrize("training", [True, False])
def test_sample_depends_only_on_its_own_latent_and_label(build, training):
    # Two copies, since a forward in train mode may move the vectors of spectral norm.
    generator = build().train(training)
    twin = copy.deepcopy(generator)
    latents, labels = draw_latents(2), torch.tensor([3, 4])
    samples = generator(latents, labels)
    latents[1], labels[1] = 5.0, 7
    changed = twin(latents, labels)
    assert torch.equal(changed[0], samples[0])
    assert not torch.allclose(changed[1], samples[1])


def test_gradient_of_one_sample_reaches_only_its_own_latent(build):
    latents = draw_latents(3).requires_grad_()
    build()(latents, torch.arange(3))[0].sum().backward()
    assert latents.grad[0].norm() > 0
    assert latents.grad[1:].eq(0).all()


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


def test_initialisation_is_decided_by_the_torch_seed(build):
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [
        ("dcgan", 64, 1_112_613),
        ("dcgan", 32, 300_357),
        ("dcgan", 16, 86_229),
        ("resnet", 64, 3_826_277),
        ("resnet", 32, 979_301),
        ("resnet", 16, 256_229),
    ],
)
def test_parameter_count(name, width, parameters):
    generator = GENERATORS[name](10, 10, width)
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 6)])
def test_mean_square_over_channels_is_one_at_every_pixel(shape):
    features = 10 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mean_square = PixelNorm()(features).square().mean(dim=1)
    torch.testing.assert_close(mean_square, torch.ones_like(mean_square))


def test_known_value():
    # Mean square of (1, 7) is 25, so the vector is divided by 5.
    torch.testing.assert_close(PixelNorm()(torch.tensor([[1.0, 7.0]])), torch.tensor([[0.2, 1.4]]))


def test_zero_vector_stays_zero_with_a_finite_gradient():
    features = torch.zeros(1, 4, requires_grad=True)
    normalised = PixelNorm()(features)
    normalised.sum().backward()
    assert normalised.eq(0).all()
    assert features.grad.isfinite().all()


def test_has_no_state():
    assert not PixelNorm().state_dict()


@pytest.mark.parametrize("num_classes", [10, 62])
def test_every_class_gives_images_in_unit_range(num_classes):
    generator = seeded(SlimGenerator, num_classes)
    samples = generator(draw_latents(num_classes), torch.arange(num_classes))
    assert samples.shape == (num_classes, 1, 28, 28)
    assert samples.dtype == torch.float32
    assert 0 <= samples.min() < samples.max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_a_row_is_a_function_of_its_own_latent_and_label(training):
    generator = seeded(SlimGenerator).train(training)
    together = generator(draw_latents(3), torch.tensor([3, 4, 5]))
    for row, label in enumerate((3, 4, 5)):
        alone = generator(draw_latents(3)[row : row + 1], torch.tensor([label]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_class_embedding_is_as_long_as_the_latent():
    assert seeded(SlimGenerator).class_embedding.embedding_dim == LATENT_DIM


def test_train_and_eval_are_the_same_function():
    generator, latents, labels = seeded(DCGANGenerator), draw_latents(2), torch.tensor([0, 1])
    assert torch.equal(generator.train()(latents, labels), generator.eval()(latents, labels))


def build_resnet(width=2):
    return seeded(ResNetGenerator, width=width)


def snapshot(generator):
    return {name: value.clone() for name, value in generator.state_dict().items()}


def test_power_iteration_does_not_depend_on_the_latents():
    generator = build_resnet().train()
    twin = copy.deepcopy(generator)
    generator(draw_latents(3), torch.arange(3))
    twin(torch.zeros(1, LATENT_DIM), torch.tensor([9]))
    state = twin.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items())


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


def test_train_forward_moves_the_vectors_even_without_gradients():
    generator = build_resnet().train()
    before = snapshot(generator)
    with torch.no_grad():
        generator(draw_latents(1), torch.tensor([0]))
    moved = {n for n, value in generator.state_dict().items() if not torch.equal(value, before[n])}
    assert moved
    assert all(name.endswith(("._u", "._v")) for name in moved)


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


def test_state_dict_restores_the_samples_exactly():
    generator, latents, labels = build_resnet(), draw_latents(2), torch.tensor([0, 1])
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
    found = generators._doubled_and_convolved(features, layer)
    expected = doubled_and_convolved_one_after_the_other(features, layer)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_folding_changes_neither_samples_nor_gradients_nor_spectral_norm(monkeypatch):
    generator = build_resnet(width=4).double().train()
    twin = copy.deepcopy(generator)
    latents, labels = draw_latents(3).double(), torch.arange(3)
    samples = generator(latents, labels)
    samples.square().sum().backward()
    one_after_the_other = doubled_and_convolved_one_after_the_other
    monkeypatch.setattr(generators, "_doubled_and_convolved", one_after_the_other)
    expected = twin(latents, labels)
    expected.square().sum().backward()
    torch.testing.assert_close(samples, expected, rtol=1e-10, atol=1e-12)
    for (name, one), other in zip(generator.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-11, msg=name)
    assert all(map(torch.equal, snapshot(generator).values(), snapshot(twin).values()))
