"""Feature extractors of the metrics: the score classifier and Inception-v3.

Shapes: B batch, C channels, H and W image, F features.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import NoTrainInceptionV3

from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.evaluation.classifier import ImageClassifier, Progress, train_classifier
from fed_gswgan.evaluation.lenet import PixelNormalization, train_as_published
from fed_gswgan.models.judge import StrokeJudge
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
    kind: ScoreClassifierKind, spec: DataSpec, weights: Mapping[str, Tensor]
) -> ScoreClassifier:
    """Return the trained judge whose ``state_dict`` was kept, in eval mode.

    Raises:
        RuntimeError: the weights are not those of this kind and data set.
    """
    one_of(KINDS, score_classifier=kind)
    network: ScoreClassifier = (
        ImageClassifier(spec.image_shape, spec.num_classes)
        if kind == "small"
        else Vgg11(spec.num_classes)
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
        images_NCHW: real, float32 (N, C, H, W) in [0, 1], for ``vgg11`` (N, 1, 28, 28); training
            runs on their device.
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


class FeatureExtractor(nn.Module):
    """Maps float32 (B, C, H, W) in [0, 1] to float64 features (B, F) on the CPU.

    Attributes:
        num_features: F; without it torchmetrics draws an image from the global generator.
        description: names the features in a table.
    """

    num_features: int
    description: str


class ClassifierFeatures(FeatureExtractor):
    """The penultimate activations of a classifier of real images.

    Float64, which torchmetrics then keeps to the end.

    Args:
        classifier: in eval mode.
        description: names the classifier.
    """

    def __init__(
        self, classifier: ScoreClassifier | StrokeJudge, description: str = "classifier"
    ) -> None:
        super().__init__()
        self.layers = classifier.features
        self.num_features = classifier.logits.in_features
        self.description = description

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features."""
        features_BF: Tensor = self.layers(images_BCHW)
        return features_BF.cpu().double()


FEATURES = 2048

# The network that FID is defined by, of 2015-12-05, as torch-fidelity converted it.
WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
WEIGHTS_FILE = WEIGHTS_URL.rsplit("/", 1)[-1]
WEIGHTS_SHA256_START = "6726825d"  # torch's convention: the last part of the file's name


class InceptionUnavailable(RuntimeError):
    """Inception-v3 cannot be had here; a caller may fall back to other features, and say so."""


class InceptionFeatures(FeatureExtractor):
    """The 2,048 numbers after the last pooling; gray is repeated for red, green and blue.

    Enlarged to 299x299 as the original TensorFlow graph does, not as PyTorch would.

    Args:
        weights: torch-fidelity's file.

    Raises:
        InceptionUnavailable: torch-fidelity is not installed.
    """

    num_features = FEATURES
    description = "Inception-v3"

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            self.network = NoTrainInceptionV3(
                "inception-v3-compat", [str(FEATURES)], str(weights), antialias=False
            )
        except ModuleNotFoundError as error:
            raise InceptionUnavailable(
                "Inception-v3 needs torch-fidelity: pip install torch-fidelity"
            ) from error

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features, float64 (B, 2048) on the CPU, of images in [0, 1]."""
        if images_BCHW.shape[1] not in (1, 3):
            raise ValueError(
                f"Inception-v3 needs grey or RGB images (N, 1 or 3, H, W), not "
                f"{tuple(images_BCHW.shape)}"
            )
        bytes_BCHW = (images_BCHW * 255).round().to(torch.uint8)
        features_BF: Tensor = self.network(bytes_BCHW.expand(-1, 3, -1, -1))
        return features_BF.cpu().double()


def inception_features(device: torch.device, weights: Path | None = None) -> InceptionFeatures:
    """Return the extractor that FID and KID are defined with.

    Args:
        device: where the network runs; a CPU core reads a few images a second.
        weights: torch-fidelity's file; None: in torch's cache of downloads, fetched if need be.

    Raises:
        InceptionUnavailable: there is no such file and it cannot be downloaded, it is another
            one, or torch-fidelity is not installed; says what to do.
    """
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    if weights is None and not path.is_file():
        _download(path)
    if not path.is_file():
        raise InceptionUnavailable(f"{path}: no such file; fetch {WEIGHTS_URL} and name it")
    # The file is unpickled, so it must be the one that is known.
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(WEIGHTS_SHA256_START):
        raise InceptionUnavailable(
            f"{path}: SHA-256 {found[:8]} must be {WEIGHTS_SHA256_START}; fetch {WEIGHTS_URL} again"
        )
    return InceptionFeatures(path).to(device)


def _download(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(WEIGHTS_URL, str(path), WEIGHTS_SHA256_START, progress=False)
    except (OSError, RuntimeError) as error:  # no network, or another file
        raise InceptionUnavailable(
            f"{path}: not there, and not to be downloaded ({error}); "
            f"fetch {WEIGHTS_URL} elsewhere and put it there"
        ) from error
