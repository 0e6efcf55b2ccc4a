import pytest
import torch

from fed_gswgan.models.dcgan_generator import DCGANGenerator

LATENT_DIM = 6


def build(num_classes=10, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DCGANGenerator(LATENT_DIM, num_classes, width)


def draw_latents(rows):
    return torch.randn(rows, LATENT_DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("num_classes", [10, 62])
def test_samples_are_images_in_unit_range(rows, num_classes):
    generator = build(num_classes)
    samples = generator(draw_latents(rows), torch.full((rows,), num_classes - 1))
    assert samples.shape == (rows, 1, 28, 28)
    assert samples.dtype == torch.float32
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert (generator.latent_dim, generator.num_classes) == (LATENT_DIM, num_classes)


@pytest.mark.parametrize("training", [True, False])
def test_sample_depends_only_on_its_own_latent_and_label(training):
    generator = build().train(training)
    latents, labels = draw_latents(2), torch.tensor([3, 4])
    samples = generator(latents, labels)
    latents[1], labels[1] = 5.0, 7
    changed = generator(latents, labels)
    assert torch.equal(changed[0], samples[0])
    assert not torch.allclose(changed[1], samples[1])


def test_gradient_of_one_sample_reaches_only_its_own_latent():
    latents = draw_latents(3).requires_grad_()
    build()(latents, torch.arange(3))[0].sum().backward()
    assert latents.grad[0].norm() > 0
    assert latents.grad[1:].eq(0).all()


def test_label_changes_the_sample():
    latents = draw_latents(1).expand(10, -1)
    samples = build()(latents, torch.arange(10))
    assert torch.pdist(samples.flatten(1)).min() > 1e-2


def test_train_and_eval_are_the_same_function():
    generator, latents, labels = build(), draw_latents(2), torch.tensor([0, 1])
    assert torch.equal(generator.train()(latents, labels), generator.eval()(latents, labels))


def test_every_parameter_receives_a_gradient():
    generator = build(num_classes=2)
    generator(draw_latents(4), torch.tensor([0, 1, 0, 1])).square().sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in generator.parameters())


def test_initialisation_is_decided_by_the_torch_seed():
    first, second = build().state_dict(), build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("width", "parameters"), [(64, 1_112_613), (32, 300_357), (16, 86_229)])
def test_parameter_count(width, parameters):
    generator = DCGANGenerator(10, 10, width)
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters
