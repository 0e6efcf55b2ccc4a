"""How the published evaluation trains its networks: SGD, one fall of the learning rate."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.evaluation.progress import Progress
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least

# MNIST's mean and standard deviation; the published code uses them for Fashion-MNIST too.
PIXEL_MEAN = 0.1307
PIXEL_STDDEV = 0.3081

EPOCHS = 50
BATCH_SIZE = 128
DECAY_AT = 0.8  # of the epochs: after 40 of 50
DECAY = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4

Network = TypeVar("Network", bound=nn.Module)

Augmentation = Callable[[Tensor, np.random.Generator], Tensor]
"""Changes a batch (B, 1, 28, 28) in [0, 1] before it is learned from."""


class PixelNormalization(nn.Module):
    """Shifts and scales images in [0, 1] by MNIST's mean and standard deviation."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return images of the same shape; MNIST's have mean 0 and deviation 1."""
        return (images_BCHW - PIXEL_MEAN) / PIXEL_STDDEV


def unchanged(images_BCHW: Tensor, _: np.random.Generator) -> Tensor:
    """Return the batch as it is."""
    return images_BCHW


def train_as_published(
    build: Callable[[], Network],
    images_NCHW: Tensor,
    labels_N: Tensor,
    learning_rate: float,
    epochs: int,
    seed: int,
    purpose: str,
    progress: Progress,
    augmentation: Augmentation = unchanged,
) -> Network:
    """Train a network from scratch and return the last epoch's weights, in eval mode.

    Nothing is selected. Momentum 0.9, weight decay 1e-4, batches of 128; the learning rate is
    tenfold smaller for the last fifth of the epochs. On a CPU the same seed gives the same
    weights, and the caller's random state is left as it was.

    Args:
        build: makes the network; its weights come from the global generator, seeded here.
        images_NCHW: float32 (N, 1, 28, 28) in [0, 1]; training runs on their device.
        labels_N: int64.
        learning_rate: until it falls.
        epochs: 50 as published.
        seed: of the initial weights and of the order and augmentation in each epoch.
        purpose: names the network in the progress, and keeps its draws apart from another's.
        progress: told the training loss of each epoch.
        augmentation: none by default.

    Source: GS-WGAN (arXiv 2006.08265), its evaluation code.
    """
    at_least(1, epochs=epochs)
    at_least(2, training_images=len(images_NCHW))
    seeds = SeedStream(seed)
    draws = seeds.generator(f"{purpose} order")
    with initial_weights_from(seeds.torch_seed(f"{purpose} weights")):
        network = build().to(images_NCHW.device)
    optimizer = torch.optim.SGD(
        network.parameters(), learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(DECAY_AT * epochs)], DECAY)
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(draws.permutation(len(images_NCHW))).to(images_NCHW.device)
        losses = []
        for chosen in torch.split(order, BATCH_SIZE):
            if len(chosen) < 2:
                break  # batch normalisation cannot do with one image
            with torch.enable_grad():
                logits_BL = network(augmentation(images_NCHW[chosen], draws))
                loss = functional.cross_entropy(logits_BL, labels_N[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        schedule.step()
        mean_loss = torch.stack(losses).mean().item()
        progress(f"{purpose}: epoch {epoch} of {epochs}, training loss {mean_loss:.4f}")
    return network.eval()
