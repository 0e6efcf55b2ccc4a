import math

import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.models.registry import build_generator
from fed_gswgan.training.generator_trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.training_config import AdamConfig, GeneratorConfig

GENERATORS = ["slim", "dcgan", "resnet"]


class Scale(nn.Module):
    """A generator of one parameter: sample = scale x latent."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, latents_BZ, labels_B):
        return self.scale * latents_BZ.view(-1, 1, 1, 1)


def scale_trainer(halflife, learning_rate=0.1):
    config = GeneratorConfig(ema_halflife_steps=halflife, generator_learning_rate=learning_rate)
    return GeneratorTrainer(Scale(), config, AdamConfig())


def build_trainer(name):
    config = GeneratorConfig(generator=name, generator_width=8, latent_dim=4)
    return GeneratorTrainer(
        build_generator(config, DataSpec(IMAGE_SHAPE, 3), seed=0), config, AdamConfig()
    )


def inputs(seed, count=5):
    randomness = np.random.default_rng(seed)
    return draw_latents(count, 4, "normal", randomness), draw_labels(count, 3, randomness)


def gradient(seed, count=5):
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", GENERATORS)
def test_step_regenerates_to_the_bit_the_samples_that_were_sent(name):
    trainer = build_trainer(name)
    regenerated = []
    for server_round in range(4):
        sent = trainer.samples(*inputs(server_round))
        handle = trainer.generator.register_forward_hook(
            lambda module, given, output: regenerated.append(output.detach().clone())
        )
        trainer.step(*inputs(server_round), gradient(server_round))
        handle.remove()
        assert torch.equal(regenerated[0], sent)
        regenerated.clear()


@pytest.mark.parametrize("name", GENERATORS)
def test_drawing_samples_changes_neither_weights_nor_buffers(name):
    trainer = build_trainer(name)
    before = {n: t.clone() for n, t in trainer.generator.state_dict().items()}
    samples = trainer.samples(*inputs(0))
    after = trainer.generator.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert not samples.requires_grad


@pytest.mark.parametrize("name", GENERATORS)
def test_a_step_moves_the_samples_against_the_gradient(name):
    trainer = build_trainer(name)
    latents, labels = inputs(0)
    before = trainer.samples(latents, labels)
    trainer.step(latents, labels, gradient(0))
    after = trainer.samples(latents, labels)
    assert (gradient(0) * after).sum() < (gradient(0) * before).sum()


def test_step_uses_the_mean_over_rows_and_returns_the_norm_of_its_gradient():
    latents, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])
    rows = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1)
    # mean of 2 x 1 and 4 x 3
    assert scale_trainer(1).step(latents, labels, rows) == 7
    doubled = scale_trainer(1).step(latents.repeat(2, 1), labels.repeat(2), rows.repeat(2, 1, 1, 1))
    assert doubled == 7


def test_a_step_forgets_the_gradient_of_the_step_before():
    trainer = scale_trainer(1)
    one, label, row = torch.ones(1, 1), torch.tensor([0]), torch.full((1, 1, 1, 1), 5.0)
    assert [trainer.step(one, label, row) for _ in range(3)] == [5, 5, 5]


def test_ema_after_one_step_by_hand():
    trainer = scale_trainer(halflife=1)
    trainer.step(torch.ones(1, 1), torch.tensor([0]), torch.ones(1, 1, 1, 1))
    # Adam's first step is the learning rate: 1 - 0.1; half of the way at a half-life of 1.
    assert trainer.generator.scale.item() == pytest.approx(0.9)
    assert trainer.ema_generator.scale.item() == pytest.approx(0.95)


@pytest.mark.parametrize("halflife", [1, 4, 10])
def test_after_one_halflife_of_rounds_the_ema_has_come_half_way(halflife):
    trainer = scale_trainer(halflife)
    with torch.no_grad():
        trainer.generator.scale.fill_(2)
    for _ in range(halflife):  # a gradient of zero leaves the generator where it is
        trainer.step(torch.ones(1, 1), torch.tensor([0]), torch.zeros(1, 1, 1, 1))
    assert trainer.generator.scale == 2
    assert trainer.ema_generator.scale.item() == pytest.approx(1.5)


def test_a_halflife_of_zero_keeps_no_average():
    trainer = scale_trainer(halflife=0)
    trainer.step(torch.ones(1, 1), torch.tensor([0]), torch.ones(1, 1, 1, 1))
    assert torch.equal(trainer.ema_generator.scale, trainer.generator.scale)


def test_buffers_advance_with_every_step_and_are_copied_to_the_ema_generator():
    trainer = build_trainer("resnet")
    before = [buffer.clone() for buffer in trainer.generator.buffers()]
    trainer.step(*inputs(0), gradient(0))
    current, averaged = list(trainer.generator.buffers()), list(trainer.ema_generator.buffers())
    assert len(current) == len(averaged) > 0
    assert all(map(torch.equal, current, averaged))
    # A layer with one output has a singular vector of one number, which stays 1.
    assert all(
        torch.equal(now, then) == (now.numel() == 1)
        for now, then in zip(current, before, strict=True)
    )


def test_both_generators_stay_in_eval_mode_and_share_no_memory():
    trainer = build_trainer("resnet")
    trainer.step(*inputs(0), gradient(0))
    assert not trainer.generator.training
    assert not trainer.ema_generator.training
    current = {parameter.data_ptr() for parameter in trainer.generator.parameters()}
    assert current.isdisjoint(p.data_ptr() for p in trainer.ema_generator.parameters())


def test_bernoulli_latents_are_fair_zeros_and_ones():
    latents = draw_latents(1000, 10, "bernoulli", np.random.default_rng(0))
    assert latents.shape == (1000, 10)
    assert latents.dtype == torch.float32
    assert set(latents.unique().tolist()) == {0.0, 1.0}
    assert latents.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(10_000))


def test_normal_latents_have_mean_0_and_standard_deviation_1():
    latents = draw_latents(1000, 10, "normal", np.random.default_rng(0))
    assert latents.shape == (1000, 10)
    assert latents.dtype == torch.float32
    assert latents.mean().item() == pytest.approx(0, abs=0.05)
    assert latents.std().item() == pytest.approx(1, abs=0.05)


def test_labels_are_uniform_over_the_classes():
    labels = draw_labels(10_000, 10, np.random.default_rng(0))
    assert labels.dtype == torch.int64
    counts = labels.bincount(minlength=10)
    assert len(counts) == 10
    assert (counts - 1000).abs().max() < 150  # five standard deviations of 30


@pytest.mark.parametrize("kind", ["bernoulli", "normal"])
def test_inputs_are_decided_by_their_random_generator(kind):
    first, again, other = (
        draw_latents(20, 4, kind, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("end_factor", "elapsed", "expected"),
    [
        (0.2, 0.01, 0.5),
        (0.2, 0.5, 0.5),
        (0.2, 0.75, 0.3),
        (0.2, 1.0, 0.1),
        (1.0, 1.0, 0.5),
        (0, 1, 0),
    ],
)
def test_the_learning_rate_falls_over_the_second_half_of_the_rounds(end_factor, elapsed, expected):
    config = GeneratorConfig(
        generator_learning_rate=0.5, generator_learning_rate_end_factor=end_factor
    )
    trainer = GeneratorTrainer(Scale(), config, AdamConfig())
    trainer.set_learning_rate(elapsed)
    before = trainer.generator.scale.item()
    trainer.step(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, 1, 1))
    # Adam's first step is as long as its learning rate.
    assert before - trainer.generator.scale.item() == pytest.approx(expected, abs=1e-6)
