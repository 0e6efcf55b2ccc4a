"""The classifier of real images behind the inception score of the published tables."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.evaluation.classifier import ImageClassifier, train_classifier
from fed_gswgan.evaluation.progress import Progress
from fed_gswgan.evaluation.published_training import PixelNormalization, train_as_published
from fed_gswgan.validation import one_of

ScoreClassifierKind = Literal["vgg11", "small"]
KINDS: tuple[ScoreClassifierKind, ...] = ("vgg11", "small")

LEARNING_RATE = 0.1
CROP_PADDING = 4
_CHANNELS: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, *2 * (512, 512, None))


class Vgg11(nn.Module):
    """Eight convolutions with batch normalisation, maxima between (None), and one dense layer.

    Source: Simonyan and Zisserman 2014 (arXiv 1409.1556), table 1, column A, as GS-WGAN's
    evaluation code has it: the first convolution's padding of 3 makes 32x32 of 28x28.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [PixelNormalization()]
        channels, padding = 1, 3
        for width in _CHANNELS:
            if width is None:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=padding), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU())
            channels, padding = width, 1
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.logits = nn.Linear(channels, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, L) of images (B, 1, 28, 28) in [0, 1]; it normalises them itself."""
        logits_BL: Tensor = self.logits(self.features(images_BCHW))
        return logits_BL


ScoreClassifier = Vgg11 | ImageClassifier


def kept_score_classifier(
    kind: ScoreClassifierKind, num_classes: int, weights: Mapping[str, Tensor]
) -> ScoreClassifier:
    """Return the trained judge whose ``state_dict`` was kept, in eval mode.

    Raises:
        RuntimeError: the weights are not those of this kind and number of classes.
    """
    one_of(KINDS, score_classifier=kind)
    network: ScoreClassifier = (
        ImageClassifier(num_classes) if kind == "small" else Vgg11(num_classes)
    )
    network.load_state_dict(weights)
    return network.eval()


def train_score_classifier(
    images_NCHW: Tensor,
    labels_N: Tensor,
    num_classes: int,
    kind: ScoreClassifierKind,
    amount: int,
    seed: int,
    progress: Progress,
) -> ScoreClassifier:
    """Train the judge of the inception score on real training images.

    ``vgg11`` is the published one: crops, and flips even of digits, learning rate 0.1. It needs an
    accelerator. ``small`` is ``ImageClassifier``; scores of the two are not to be compared.

    Args:
        images_NCHW: real, float32 (N, 1, 28, 28) in [0, 1]; training runs on their device.
        labels_N: int64 in [0, ``num_classes``).
        num_classes: number of logits.
        kind: ``vgg11`` or ``small``.
        amount: epochs of ``vgg11`` (50 as published), optimizer steps of ``small``.
        seed: of the training.
        progress: told of each epoch.

    Source: GS-WGAN (arXiv 2006.08265), its evaluation code.
    """
    one_of(KINDS, score_classifier=kind)
    if kind == "small":
        return train_classifier(images_NCHW, labels_N, num_classes, seed, amount)
    return train_as_published(
        lambda: Vgg11(num_classes),
        images_NCHW,
        labels_N,
        LEARNING_RATE,
        amount,
        seed,
        "vgg11",
        progress,
        crop_and_flip,
    )


def crop_and_flip(images_BCHW: Tensor, generator: np.random.Generator) -> Tensor:
    """Shift each image by up to 4 pixels, filling with 0, and mirror every other one.

    Args:
        images_BCHW: float32 in [0, 1].
        generator: the only source of randomness.

    Returns:
        Images of the same shape and range.
    """
    count, _, height, width = images_BCHW.shape
    padded = functional.pad(images_BCHW, [CROP_PADDING] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    down, across = torch.from_numpy(generator.integers(2 * CROP_PADDING + 1, size=(2, count)))
    every = torch.arange(count, device=images_BCHW.device)
    cropped = windows[every, :, down.to(every.device), across.to(every.device)]
    mirrored = torch.from_numpy(generator.random(count) < 0.5).to(every.device)
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)
