from dataclasses import replace

import torch
from torch import nn

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_generator
from fed_gswgan.training.sampling import sampler_of
from fed_gswgan.training_config import GeneratorConfig

CONFIG = GeneratorConfig(generator_width=4, latent_dim=3)


class Echo(nn.Module):
    """Every pixel is the label that was asked for; remembers the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def forward(self, latents_BZ, labels_B):
        assert not self.training
        self.batch_sizes.append(len(latents_BZ))
        return labels_B.float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def test_samples_are_of_the_classes_asked_for_in_order_and_drawn_at_once():
    labels, echo = torch.arange(700) % 7, Echo()
    samples = sampler_of(echo, CONFIG)(labels, 0)
    assert echo.batch_sizes == [700]
    assert samples.shape == (700, 1, 28, 28)
    assert torch.equal(samples[:, 0, 5, 5], labels.float())


def test_samples_are_decided_by_the_seed():
    sampler = sampler_of(build_generator(CONFIG, DataSpec(IMAGE_SHAPE, 3), seed=0), CONFIG)
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(sampler(labels, 1), sampler(labels, 1))
    assert not torch.equal(sampler(labels, 1), sampler(labels, 2))


def test_drawing_keeps_no_graph_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    samples = sampler_of(build_generator(CONFIG, DataSpec(IMAGE_SHAPE, 3), seed=0), CONFIG)(
        torch.tensor([0, 1]), 0
    )
    assert not samples.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_contrast_moves_greys_apart_and_leaves_ink_paper_and_middle_grey():
    greys = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0])

    def drawn(contrast):
        def generator(latents_BZ, labels_B):
            return greys[labels_B].view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

        network = nn.Module()
        network.forward = generator
        config = replace(CONFIG, sample_contrast=contrast)
        return sampler_of(network, config)(torch.arange(5), 0)[:, 0, 0, 0]

    assert torch.equal(drawn(1.0), greys)
    # odds of 1:4 and 4:1, squared
    torch.testing.assert_close(drawn(2.0), torch.tensor([0.0, 1 / 17, 0.5, 16 / 17, 1.0]))
