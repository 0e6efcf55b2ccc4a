import pytest
import torch

from fed_gswgan.models.slim_generator import SlimGenerator
from tests.fed_gswgan.models.conftest import LATENT_DIM, draw_latents, seeded


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
