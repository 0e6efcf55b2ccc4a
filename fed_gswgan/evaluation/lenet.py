"""LeNet, and the published training of classifiers.

Shapes: B batch, C channels, H and W image.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.evaluation.classifier import Progress, accuracy
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
"""Changes a batch (B, 1, 28, 28) in [0, 1] before training on it."""


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

    Raises:
        ValueError: images of another shape, fewer than two of them, or no epoch.

    Source: GS-WGAN (arXiv 2006.08265), its evaluation code.
    """
    at_least(1, epochs=epochs)
    at_least(2, training_images=len(images_NCHW))
    if images_NCHW.shape[1:] != IMAGE_SHAPE:
        raise ValueError(
            f"{purpose} is published for images (N, 1, 28, 28), not {tuple(images_NCHW.shape)}"
        )
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


LEARNING_RATE = 0.02


class LeNet(nn.Module):
    """Two convolutions of 6 and 16 channels, dense layers of 120 and 84, rectified.

    Source: LeCun et al. 1998 for the layer sizes; ReLU and maxima as in GS-WGAN's evaluation code.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            PixelNormalization(),
            nn.Conv2d(1, 6, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, L) of images (B, 1, 28, 28) in [0, 1]; it normalises them itself."""
        logits_BL: Tensor = self.layers(images_BCHW)
        return logits_BL


def cnn_accuracy(
    train_images_NCHW: Tensor,
    train_labels_N: Tensor,
    test_images_NCHW: Tensor,
    test_labels_N: Tensor,
    num_classes: int,
    seed: int,
    progress: Progress,
    epochs: int = EPOCHS,
) -> float:
    """Train a LeNet on one set and return its accuracy in [0, 1] on the other.

    The last epoch's weights count: the test images serve once, at the end. The published code logs
    the test accuracy of every epoch and leaves open which one is printed.

    Args:
        train_images_NCHW: samples, or real images for the reference; float32 (N, 1, 28, 28) in
            [0, 1], N >= 2.
        train_labels_N: int64 in [0, ``num_classes``).
        test_images_NCHW: real images, on the same device.
        test_labels_N: int64.
        num_classes: number of logits.
        seed: of the training.
        progress: told the training loss of each epoch.
        epochs: 50 as published.

    Source: GS-WGAN (arXiv 2006.08265), its evaluation code: no augmentation, learning rate 0.02.
    """
    lenet = train_as_published(
        lambda: LeNet(num_classes),
        train_images_NCHW,
        train_labels_N,
        LEARNING_RATE,
        epochs,
        seed,
        "lenet",
        progress,
    )
    found = accuracy(lenet, test_images_NCHW, test_labels_N)
    progress(f"lenet: accuracy {found:.4f} on {len(test_labels_N)} real images")
    return found
