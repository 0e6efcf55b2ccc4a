import numpy as np
import pytest
import torch

from fed_gswgan.config import AdamConfig, CriticConfig
from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training import critic_training
from fed_gswgan.training.critic_training import critic_optimizer, train_critic
from fed_gswgan.training.mlp_critic_gradient import set_mlp_critic_gradient

CONFIG = CriticConfig(gradient_penalty=10.0, drift_penalty=1e-3)


def critic_of(seed: int, classes: int = 5, width: int = 32) -> MLPCritic:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MLPCritic(classes, width)


def batch(seed: int, size: int = 16, classes: int = 5):
    draws = torch.Generator().manual_seed(seed)
    images = (torch.rand(size, 1, 28, 28, generator=draws) > 0.8).float()
    samples = torch.rand(size, 1, 28, 28, generator=draws)
    labels = torch.randint(classes, (size,), generator=draws)
    return images, samples, labels, torch.rand(size, generator=draws)


def gradients(critic: MLPCritic) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in critic.named_parameters()}


def by_autograd_and_written_out(critic: MLPCritic, inputs, config: CriticConfig):
    critic.zero_grad(set_to_none=True)
    critic_training._set_gradient(critic, *inputs, config)
    expected = gradients(critic)
    critic.zero_grad(set_to_none=True)
    set_mlp_critic_gradient(critic, *inputs, config)
    return expected, gradients(critic)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        CriticConfig(gradient_penalty=0.0, drift_penalty=0.0),
        CriticConfig(gradient_penalty=3.0, drift_penalty=2.0),
    ],
)
def test_it_is_the_gradient_of_autograd_in_double_precision(seed, config):
    critic = critic_of(seed).double()
    images, samples, labels, mix = batch(seed)
    inputs = images.double(), samples.double(), labels, mix.double()
    expected, written_out = by_autograd_and_written_out(critic, inputs, config)
    for name, found in written_out.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-11, msg=name)


def test_in_single_precision_it_is_as_near_as_rounding_allows():
    critic = critic_of(0, classes=62, width=256)
    inputs = batch(1, size=64, classes=62)
    expected, written_out = by_autograd_and_written_out(critic, inputs, CONFIG)
    for name, found in written_out.items():
        scale = expected[name].abs().max()
        assert (found - expected[name]).abs().max() < 1e-4 * scale, name


def test_a_training_of_many_steps_ends_where_autograd_s_does(monkeypatch):
    labels = np.arange(40) % 5
    shard = WriterShard(("w",), batch(3, 40)[0].numpy(), labels)
    ends = []
    for type_with_closed_form in (MLPCritic, type(None)):  # the second one never matches
        monkeypatch.setattr(critic_training, "MLPCritic", type_with_closed_form)
        critic = critic_of(0)
        config = CriticConfig(critic_steps=30)
        optimizer = critic_optimizer(critic, config, AdamConfig())
        _, samples, sample_labels, _ = batch(4)
        train_critic(
            critic, optimizer, shard, samples[None], sample_labels[None], config,
            np.random.default_rng(0),
        )  # fmt: skip
        with torch.no_grad():
            ends.append(critic(samples, sample_labels))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-8])
def test_a_critic_that_is_nearly_flat_gets_no_larger_gradient_than_by_autograd(scale):
    critic = critic_of(0)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter *= scale
    inputs = batch(0)
    expected, written_out = by_autograd_and_written_out(critic, inputs, CONFIG)
    for name, found in written_out.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-13, msg=name)


def test_weights_and_inputs_are_left_as_they_were():
    critic, inputs = critic_of(0), batch(0)
    before = [value.clone() for value in (*critic.parameters(), *inputs)]
    set_mlp_critic_gradient(critic, *inputs, CONFIG)
    after = [*critic.parameters(), *inputs]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
