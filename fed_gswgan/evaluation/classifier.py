"""Small image classifier: network, training, accuracy.

Shapes: B batch, C channels, H and W image.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan import progress
from fed_gswgan.data.client_dataset import image_shape_of
from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least

Progress = Callable[[str], None]
"""Takes one line about what was just done."""


MAX_SHIFT_PIXELS = 2.0
MAX_ROTATION_RADIANS = 0.17
MAX_SCALING = 0.1


def deform(images_BCHW: Tensor, generator: np.random.Generator) -> Tensor:
    """Shift, turn and scale each image a little, filling with paper (0).

    Args:
        images_BCHW: float32 in [0, 1], ink 1 and paper 0.
        generator: the only source of randomness.

    Returns:
        Images of the same shape and range, interpolated bilinearly.
    """
    count, _, height, width = images_BCHW.shape
    angle = generator.uniform(-MAX_ROTATION_RADIANS, MAX_ROTATION_RADIANS, count)
    scale = generator.uniform(1 - MAX_SCALING, 1 + MAX_SCALING, count)
    shift_pixels = generator.uniform(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS, (2, count))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    # The sampling grid spans [-1, 1], so one pixel is 2 / size.
    across, down = shift_pixels[0] * 2 / width, shift_pixels[1] * 2 / height
    affine_B23 = np.stack([[cosine, -sine, across], [sine, cosine, down]]).transpose(2, 0, 1)
    grid_BHW2 = functional.affine_grid(
        torch.as_tensor(affine_B23, dtype=images_BCHW.dtype, device=images_BCHW.device),
        [count, 1, height, width],
        align_corners=False,
    )
    return functional.grid_sample(images_BCHW, grid_BHW2, align_corners=False)


FEATURES = 64
BATCH_SIZE = 64
READING_BATCH_SIZE = 500
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
STEPS_PER_CLASS = 30


class ImageClassifier(nn.Module):
    """Two convolutions and a dense layer of 64 features; small, so that 300 images are enough.

    Args:
        image_shape: (C, H, W), H and W at least 3.
        num_classes: number of logits.
    """

    def __init__(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        pooled_pixels = (height + 1) // 4 * ((width + 1) // 4)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * pooled_pixels, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),
            nn.ReLU(),
        )
        self.logits = nn.Linear(FEATURES, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B, L) of images (B, C, H, W) in [0, 1]."""
        logits_BL: Tensor = self.logits(self.features(images_BCHW))
        return logits_BL


def train_classifier(
    images_NCHW: Tensor, labels_N: Tensor, num_classes: int, seed: int, steps: int | None = None
) -> ImageClassifier:
    """Train from scratch for a fixed number of steps and return the last weights, in eval mode.

    Batches are drawn with replacement and deformed a little. Nothing is selected: no step, weight
    or setting is chosen by an accuracy. On a CPU the same seed gives the same weights, and the
    caller's random state is left as it was.

    Args:
        images_NCHW: float32 (N, C, H, W) in [0, 1], ink 1; training runs on their device.
        labels_N: int64 in [0, ``num_classes``).
        num_classes: number of logits.
        seed: of the initial weights, the batches and their deformations.
        steps: optimizer steps of 64 images; by default 30 for each class.
    """
    steps = STEPS_PER_CLASS * num_classes if steps is None else steps
    at_least(2, classifier_steps=steps)
    at_least(1, classifier_images=len(images_NCHW))
    seeds = SeedStream(seed)
    draws = seeds.generator("classifier batches")
    with initial_weights_from(seeds.torch_seed("classifier weights")):
        classifier = ImageClassifier(image_shape_of(images_NCHW), num_classes)
    classifier.to(images_NCHW.device)
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)

    with torch.enable_grad():
        for _ in progress.steps("training a classifier for the metrics", range(steps)):
            chosen = torch.from_numpy(draws.integers(len(images_NCHW), size=BATCH_SIZE))
            chosen = chosen.to(images_NCHW.device)
            logits_BL = classifier(deform(images_NCHW[chosen], draws))
            loss = functional.cross_entropy(logits_BL, labels_N[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return classifier.eval()


@torch.no_grad()
def predicted_labels(classifier: nn.Module, images_NCHW: Tensor) -> Tensor:
    """Return the most likely class of each image, int64 (N,)."""
    batches = torch.split(images_NCHW, READING_BATCH_SIZE)
    return torch.cat([classifier(images_BCHW).argmax(dim=1) for images_BCHW in batches])


def accuracy(classifier: nn.Module, images_NCHW: Tensor, labels_N: Tensor) -> float:
    """Return the share of images in [0, 1] whose predicted class is their label."""
    return (predicted_labels(classifier, images_NCHW) == labels_N).double().mean().item()


def downstream_accuracy(
    samples_NCHW: Tensor,
    labels_N: Tensor,
    test_images_NCHW: Tensor,
    test_labels_N: Tensor,
    num_classes: int,
    seed: int,
    steps: int | None = None,
) -> float:
    """Return the accuracy in [0, 1] on real images of a classifier trained on samples only.

    The real images serve once, for the final accuracy: training runs a fixed number of steps with
    fixed settings, and nothing is selected on them. It rewards right labels and variety together.
    The number belongs to this small classifier and its deformations of the training set; a
    stronger one may make more, or less, of the same samples.

    Args:
        samples_NCHW: the training set, float32 (N, C, H, W) in [0, 1].
        labels_N: the classes asked for, int64, as many of each.
        test_images_NCHW: held-out real images, in their own class proportions.
        test_labels_N: their labels, int64.
        num_classes: of the classifier.
        seed: of its weights and batches.
        steps: optimizer steps; by default those of ``train_classifier``.
    """
    classifier = train_classifier(samples_NCHW, labels_N, num_classes, seed, steps)
    return accuracy(classifier, test_images_NCHW, test_labels_N)
