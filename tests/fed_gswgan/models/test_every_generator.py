import copy

import pytest
import torch

from fed_gswgan.models.build import GENERATORS
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
