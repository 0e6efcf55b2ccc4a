import pytest
import torch
from torch import nn

from fed_gswgan.baselines.training import (
    GENERATORS,
    OnDevice,
    ShallowDiscriminator,
    ShallowGenerator,
)
from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.data.characters import IMAGE_SHAPE


class LabelTimesSum(nn.Module):
    """Scores an image by label x sum of its pixels."""

    def forward(self, inputs: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        assert inputs.device == labels_B.device
        return inputs.sum(dim=(1, 2, 3)) * labels_B


def test_a_gradient_passes_through_the_moves():
    network = OnDevice(LabelTimesSum(), torch.device("cpu"))
    labels_B = torch.tensor([2, 3])
    gradient_BCHW = sample_gradient(network, torch.zeros(2, 1, 28, 28), labels_B)
    assert (gradient_BCHW[0] == -2).all()
    assert (gradient_BCHW[1] == -3).all()


def test_what_comes_out_lies_where_the_inputs_did():
    network = OnDevice(LabelTimesSum(), torch.device("meta"))
    out = network(torch.zeros(2, 1, 28, 28, device="meta"), torch.tensor([0, 1]))
    assert out.device.type == "meta"
    assert out.shape == (2,)


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_map_latents_and_labels_to_images(name):
    samples_BCHW = GENERATORS[name](IMAGE_SHAPE, 6, 3, 4)(torch.ones(3, 6), torch.arange(3))
    assert samples_BCHW.shape == (3, 1, 28, 28)
    assert samples_BCHW.min() >= 0
    assert samples_BCHW.max() <= 1
    assert not torch.equal(samples_BCHW[0], samples_BCHW[1])


def test_the_discriminator_scores_an_image_under_its_label():
    discriminator = ShallowDiscriminator(IMAGE_SHAPE, num_classes=3, width=8)
    images_BCHW = torch.full((3, 1, 28, 28), 0.5)
    logits_B = discriminator(images_BCHW, torch.arange(3))
    assert logits_B.shape == (3,)
    assert len(set(logits_B.tolist())) == 3


def test_published_widths_give_the_published_number_of_weights():
    generator, discriminator = (
        ShallowGenerator(IMAGE_SHAPE, 100, 10),
        ShallowDiscriminator(IMAGE_SHAPE, 10),
    )
    assert sum(p.numel() for p in generator.parameters()) == 111 * 128 + 129 * 784
    assert sum(p.numel() for p in discriminator.parameters()) == 795 * 128 + 129
