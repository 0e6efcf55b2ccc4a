"""Critic trained on the WGAN-GP loss: loss terms, steps, sample gradient, state and warm start.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from fed_gswgan.critics.closed_form import (
    is_piecewise_linear,
    set_piecewise_linear_gradient,
)
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec, image_shape_of
from fed_gswgan.models.registry import (
    AdamSettings,
    CriticNetworkSettings,
    GeneratorSettings,
    LearningRate,
    build_generator,
)
from fed_gswgan.models.trainer import GeneratorTrainer, draw_labels, draw_latents
from fed_gswgan.settings import Count, NonNegative, Whole


class CriticSettings(CriticNetworkSettings, AdamSettings):
    """The critic, and how a client trains it."""

    critic_state: Literal["persistent", "snapshot"] = "persistent"
    """or snapshot: every participation starts from the same critic"""
    critic_steps: Count = 5
    """of a client in a round"""
    critic_learning_rate: LearningRate = 1e-3
    gradient_penalty: NonNegative = 10.0
    """lambda of WGAN-GP"""
    drift_penalty: NonNegative = 1e-3
    warm_start_steps: Whole = 0
    """local generator steps before a client's first round; nothing leaves"""


def wasserstein_loss(real_scores_B: Tensor, sample_scores_B: Tensor) -> Tensor:
    """Mean score of samples minus mean score of images; the critic minimises it.

    Source: WGAN, arXiv 1701.07875, section 3.
    """
    return sample_scores_B.mean() - real_scores_B.mean()


def gradient_penalty(
    critic: nn.Module, images_BCHW: Tensor, samples_BCHW: Tensor, labels_B: Tensor, mix_B: Tensor
) -> Tensor:
    """Mean squared distance of the critic's input-gradient norm from 1, between image and sample.

    Args:
        critic: maps (B, C, H, W) and labels to scores (B,).
        images_BCHW: real images.
        samples_BCHW: generated samples of the same labels.
        labels_B: labels both are scored under.
        mix_B: where between sample (0) and image (1) each row is evaluated, uniform in [0, 1].

    Source: WGAN-GP, arXiv 1704.00028, equation 3.
    """
    weights = mix_B.view(-1, 1, 1, 1)
    between = (weights * images_BCHW + (1 - weights) * samples_BCHW).requires_grad_(True)
    scores_B = critic(between, labels_B)
    (gradients,) = torch.autograd.grad(scores_B.sum(), between, create_graph=True)
    norms_B: Tensor = gradients.flatten(1).norm(dim=1)
    return ((norms_B - 1) ** 2).mean()


def drift_penalty(real_scores_B: Tensor) -> Tensor:
    """Mean squared score of images, which keeps scores from drifting away together.

    Source: progressive growing of GANs, arXiv 1710.10196, appendix A.1.
    """
    return (real_scores_B**2).mean()


def critic_optimizer(critic: nn.Module, config: CriticSettings) -> torch.optim.Adam:
    """Return the optimizer of a critic; its moments are part of the client's state."""
    betas, rate = (config.adam_beta1, config.adam_beta2), config.critic_learning_rate
    return torch.optim.Adam(critic.parameters(), lr=rate, betas=betas, fused=True)


def train_critic(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    shard: ClientDataset,
    samples_NBCHW: Tensor,
    labels_NB: Tensor,
    config: CriticSettings,
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
    config: CriticSettings,
) -> None:
    """Take one step on the WGAN-GP loss with drift penalty.

    Where the gradient is known in closed form, that saves autograd's double backward.
    """
    optimizer.zero_grad(set_to_none=True)
    inputs = images_BCHW, samples_BCHW, labels_B, mix_B
    if is_piecewise_linear(critic):
        set_piecewise_linear_gradient(
            critic, *inputs, config.gradient_penalty, config.drift_penalty
        )
    else:
        set_gradient_by_autograd(critic, *inputs, config)
    optimizer.step()


def set_gradient_by_autograd(
    critic: nn.Module,
    images_BCHW: Tensor,
    samples_BCHW: Tensor,
    labels_B: Tensor,
    mix_B: Tensor,
    config: CriticSettings,
) -> None:
    """Set ``grad`` of every parameter for any critic that is twice differentiable."""
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
    shard: ClientDataset,
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
    shard: ClientDataset, labels_B: np.ndarray, randomness: np.random.Generator
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


def sample_gradient(
    critic: Callable[[Tensor, Tensor], Tensor], samples_BCHW: Tensor, labels_B: Tensor
) -> Tensor:
    """Return d(generator loss) / d(samples), one row a sample; private until sanitized.

    The loss is a sum over the batch, so each row is the gradient of its own sample's loss,
    -critic(sample), and a trained WGAN critic's rows have norm about 1.

    Args:
        critic: scores (samples, labels).
        samples_BCHW: in [0, 1].
        labels_B: their labels.

    Returns:
        Tensor of the samples' shape, float32; may hold non-finite values if the critic diverged.

    Source: GS-WGAN, arXiv 2006.08265: the gradient at the generator's output, the only point
        where information flows back from the critic.
    """
    inputs = samples_BCHW.detach().requires_grad_(True)
    loss = -critic(inputs, labels_B).sum()
    (gradients,) = torch.autograd.grad(loss, inputs)
    return gradients


def to_state(critic: nn.Module, optimizer: torch.optim.Adam) -> dict[str, np.ndarray]:
    """Return ``critic``, float32 (3, P): weights, first and second moments; and ``steps``, (1,).

    Of a critic that never took a step there is nothing to keep: P is 0.
    """
    rows: list[list[Tensor]] = [[], [], []]
    steps = 0
    for parameter in critic.parameters() if optimizer.state else ():
        state = optimizer.state[parameter]
        steps = int(state["step"])
        parts = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
        for row, tensor in zip(rows, parts, strict=True):
            row.append(tensor.reshape(-1))
    whole = torch.stack([torch.cat(row) for row in rows]) if rows[0] else torch.empty(3, 0)
    return {"critic": whole.numpy(), "steps": np.array([steps])}


def from_state(
    critic: nn.Module, optimizer: torch.optim.Adam, state: Mapping[str, np.ndarray]
) -> None:
    """Load what ``to_state`` returned into a critic of the same shape and its optimizer.

    Raises:
        ValueError: the state belongs to a critic of another size.
    """
    expected = sum(parameter.numel() for parameter in critic.parameters())
    if state["critic"].shape != (3, expected):
        raise ValueError(f"critic state has shape {state['critic'].shape}, must be {(3, expected)}")
    values = torch.from_numpy(np.array(state["critic"]))  # one copy, of which all below are views
    start = 0
    for parameter in critic.parameters():
        stop = start + parameter.numel()
        weights, first, second = (row[start:stop].view_as(parameter) for row in values)
        parameter.data = weights
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state["steps"][0])),
            "exp_avg": first,
            "exp_avg_sq": second,
        }
        start = stop


BATCH_SIZE = 32
CRITIC_STEPS = 5  # a generator step, as in WGAN-GP


def warm_start(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    shard: ClientDataset,
    num_classes: int,
    config: CriticSettings,
    randomness: np.random.Generator,
) -> None:
    """Train critic and a local slim generator for ``config.warm_start_steps`` generator steps.

    Source: GS-WGAN, arXiv 2006.08265, which warm-starts every critic on its own data.
    """
    if config.warm_start_steps == 0:
        return
    local = GeneratorSettings(adam_beta1=config.adam_beta1, adam_beta2=config.adam_beta2)
    local_critic = config.model_copy(update={"critic_steps": CRITIC_STEPS})
    seed = int(randomness.integers(2**31))
    spec = DataSpec(image_shape_of(shard.images), num_classes)
    trainer = GeneratorTrainer(build_generator(local, spec, seed), local)
    for _ in range(config.warm_start_steps):
        latents_BZ = draw_latents(BATCH_SIZE, local.latent_dim, local.latent_kind, randomness)
        labels_B = draw_labels(BATCH_SIZE, num_classes, randomness)
        samples_BCHW = trainer.samples(latents_BZ, labels_B)
        train_critic(
            critic, optimizer, shard, samples_BCHW[None], labels_B[None], local_critic, randomness
        )
        gradients_BCHW = sample_gradient(critic, samples_BCHW, labels_B)
        if torch.isfinite(gradients_BCHW).all():
            trainer.step(latents_BZ, labels_B, gradients_BCHW)
