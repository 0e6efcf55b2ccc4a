import torch

from fed_gswgan.models.dcgan_generator import DCGANGenerator
from tests.fed_gswgan.models.conftest import draw_latents, seeded


def test_train_and_eval_are_the_same_function():
    generator, latents, labels = seeded(DCGANGenerator), draw_latents(2), torch.tensor([0, 1])
    assert torch.equal(generator.train()(latents, labels), generator.eval()(latents, labels))
