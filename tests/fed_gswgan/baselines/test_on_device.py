import torch
from torch import nn

from fed_gswgan.baselines.on_device import OnDevice, sampler_on_labels_device
from fed_gswgan.critics.wgan_gp import sample_gradient
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import GeneratorSettings, build_generator


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


def test_the_sampler_draws_what_the_generator_makes():
    config = GeneratorSettings(generator_width=4)
    network = build_generator(config, DataSpec(IMAGE_SHAPE, 10), 0)
    sampler = sampler_on_labels_device(OnDevice(network, torch.device("cpu")), config)
    labels_B = torch.arange(10)
    samples_BCHW = sampler(labels_B, 3)
    assert samples_BCHW.shape == (10, 1, 28, 28)
    assert samples_BCHW.device == labels_B.device
    assert torch.equal(samples_BCHW, sampler(labels_B, 3))
    assert not torch.equal(samples_BCHW, sampler(labels_B, 4))
