"""CNN accuracy: what a LeNet trained on samples makes of real images."""

from torch import Tensor, nn

from fed_gswgan.evaluation.classifier import accuracy
from fed_gswgan.evaluation.progress import Progress
from fed_gswgan.evaluation.published_training import (
    EPOCHS,
    PixelNormalization,
    train_as_published,
)

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
