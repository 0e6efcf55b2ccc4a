import pytest
import torch

from fed_gswgan.models.slim_generator import SlimGenerator

LATENT_DIM = 6


def build(num_classes=10, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SlimGenerator(LATENT_DIM, num_classes, width)


def draw_latents(rows):
    return torch.randn(rows, LATENT_DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_classes", [10, 62])
def test_every_class_gives_images_in_unit_range(num_classes):
    generator = build(num_classes)
    samples = generator(draw_latents(num_classes), torch.arange(num_classes))
    assert samples.shape == (num_classes, 1, 28, 28)
    assert samples.dtype == torch.float32
    assert 0 <= samples.min() < samples.max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_a_row_is_a_function_of_its_own_latent_and_label(training):
    generator = build().train(training)
    together = generator(draw_latents(3), torch.tensor([3, 4, 5]))
    for row, label in enumerate((3, 4, 5)):
        alone = generator(draw_latents(3)[row : row + 1], torch.tensor([label]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_label_and_latent_both_change_the_sample():
    generator = build()
    by_label = generator(draw_latents(1).expand(10, -1), torch.arange(10))
    by_latent = generator(draw_latents(10), torch.zeros(10, dtype=torch.int64))
    assert torch.pdist(by_label.flatten(1)).min() > 1e-2
    assert torch.pdist(by_latent.flatten(1)).min() > 1e-2


def test_the_class_embedding_is_as_long_as_the_latent():
    assert build().class_embedding.embedding_dim == LATENT_DIM


def test_no_parameter_is_idle():
    generator = build(num_classes=2)
    generator(draw_latents(4), torch.tensor([0, 1, 0, 1])).square().sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in generator.parameters())
