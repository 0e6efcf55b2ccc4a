"""A client's critic training: a few steps on its own images against the samples it was sent.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.data.writer_shard import WriterShard
from fed_gswgan.training.critic_loss import drift_penalty, gradient_penalty, wasserstein_loss
from fed_gswgan.training.piecewise_linear_gradient import (
    is_piecewise_linear,
    set_piecewise_linear_gradient,
)
from fed_gswgan.training_config import AdamConfig, CriticConfig


def critic_optimizer(
    critic: nn.Module, critic_config: CriticConfig, adam: AdamConfig
) -> torch.optim.Adam:
    """Return the optimizer of a critic; its moments are part of the client's state."""
    betas = (adam.adam_beta1, adam.adam_beta2)
    rate = critic_config.critic_learning_rate
    return torch.optim.Adam(critic.parameters(), lr=rate, betas=betas, fused=True)


def train_critic(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    shard: WriterShard,
    samples_NBCHW: Tensor,
    labels_NB: Tensor,
    config: CriticConfig,
    randomness: np.random.Generator,
) -> None:
    """Take ``config.critic_steps`` steps, going round the sample batches.

    Args:
        critic: trained in place.
        optimizer: of the critic's parameters; its moments advance.
        shard: the client's images; never changed, never returned.
        samples_NBCHW: generated samples in [0, 1].
        labels_NB: their labels.
        config: number of steps and penalties.
        randomness: draws the images and the points of the gradient penalty.
    """
    for step in range(config.critic_steps):
        batch = draw_batch(shard, samples_NBCHW, labels_NB, step, randomness)
        critic_step(critic, optimizer, *batch, config)


def critic_step(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    config: CriticConfig,
) -> None:
    """Take one step on the WGAN-GP loss with drift penalty.

    Where the gradient is known in closed form, that saves autograd's double backward.
    """
    optimizer.zero_grad(set_to_none=True)
    inputs = images_BCHW, samples_BCHW, labels_B, mix_B
    if is_piecewise_linear(critic):
        set_piecewise_linear_gradient(critic, *inputs, config)
    else:
        set_gradient_by_autograd(critic, *inputs, config)
    optimizer.step()


def set_gradient_by_autograd(
    critic: nn.Module,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    config: CriticConfig,
) -> None:
    """Set ``grad`` of every parameter for any critic that is twice differentiable."""
    in_bfloat16 = config.critic_compute == "bfloat16"
    with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=in_bfloat16):
        scores = critic(torch.cat([images_BCHW, samples_BCHW]), torch.cat([labels_B, labels_B]))
        real_scores_B, sample_scores_B = scores.chunk(2)
        loss = (
            wasserstein_loss(real_scores_B, sample_scores_B)
            + config.gradient_penalty
            * gradient_penalty(critic, images_BCHW, samples_BCHW, labels_B, mix_B)
            + config.drift_penalty * drift_penalty(real_scores_B)
        )
    loss.backward()  # type: ignore[no-untyped-call]


def draw_batch(
    shard: WriterShard,
    samples_NBCHW: Tensor,
    labels_NB: Tensor,
    step: int,
    randomness: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what ``critic_step`` takes in this step: images, samples, labels and mix_B."""
    batch = step % len(samples_NBCHW)
    samples_BCHW, labels_B = samples_NBCHW[batch], labels_NB[batch]
    images_BCHW = draw_images(shard, labels_B.numpy(), randomness)
    mix_B = torch.from_numpy(randomness.random(len(labels_B), dtype=np.float32))
    return images_BCHW, samples_BCHW, labels_B, mix_B


def draw_images(
    shard: WriterShard, labels_B: np.ndarray, randomness: np.random.Generator
) -> Tensor:
    """Draw one image for each label, with replacement; any image where the shard has none."""
    by_label = np.argsort(shard.labels, kind="stable")
    first_B, stop_B = (
        np.searchsorted(shard.labels, labels_B, side, sorter=by_label) for side in ("left", "right")
    )
    known_B = first_B < stop_B
    draws_B = randomness.integers(np.where(known_B, stop_B - first_B, len(by_label)))
    of_label_B = by_label[np.where(known_B, first_B + draws_B, 0)]
    return torch.from_numpy(shard.images[np.where(known_B, of_label_B, draws_B)])
