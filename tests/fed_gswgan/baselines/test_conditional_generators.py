import pytest
import torch

from fed_gswgan.baselines.conditional_generators import GENERATORS, conditional_generator
from fed_gswgan.data.characters import IMAGE_SHAPE


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_every_generator_maps_latents_and_labels_to_images(name):
    latents_BZ, labels_B = torch.ones(3, 6), torch.arange(3)
    samples_BCHW = conditional_generator(name, IMAGE_SHAPE, 6, 3, 4, seed=0)(latents_BZ, labels_B)
    assert samples_BCHW.shape == (3, 1, 28, 28)
    assert samples_BCHW.min() >= 0
    assert samples_BCHW.max() <= 1
    again_BCHW = conditional_generator(name, IMAGE_SHAPE, 6, 3, 4, seed=0)(latents_BZ, labels_B)
    assert torch.equal(samples_BCHW, again_BCHW)
