"""Conditional critics with a projection head, piecewise linear in the image: MLP and convolutional.

Shapes: B batch, C channels, H and W image, P features.
"""

import math
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from fed_gswgan.models.generators import eighth_of

NEGATIVE_SLOPE = 0.2  # of the activations; source: DCGAN, arXiv 1511.06434, section 4


class MLPCritic(nn.Module):
    """Pixels-width-width with leaky ReLU; score = linear(h) + <embedding(label), h>.

    ``image_shape`` (C, H, W) may be any. ``embedding_stddev`` is the standard deviation of the
    embedding's first weights. At the usual 1 the gradient of a new critic is a random direction
    for each class, and a critic that is rarely trained takes long to forget it; a discriminator
    under DP-SGD, however, learns classes from nothing else.

    Source: the projection head is that of Miyato and Koyama, arXiv 1802.05637.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        num_classes: int,
        width: int = 256,
        embedding_stddev: float = 1.0,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(image_shape), width),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Linear(width, width),
            nn.LeakyReLU(NEGATIVE_SLOPE),
        )
        self.score = nn.Linear(width, 1)
        self.class_embedding = nn.Embedding(num_classes, width)
        nn.init.normal_(self.class_embedding.weight, std=embedding_stddev)

    def hidden_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the layers before the two activations."""
        return cast(nn.Linear, self.features[1]), cast(nn.Linear, self.features[3])

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return scores_B, higher for what looks real; images in [0, 1]."""
        features = self.features(images_BCHW)
        projection = (self.class_embedding(labels_B) * features).sum(dim=1)
        scores_B: Tensor = self.score(features).squeeze(1) + projection
        return scores_B


class ConvCritic(nn.Module):
    """Three 5x5 convolutions of stride 2 (28 -> 14 -> 7 -> 4), a score and a class projection.

    ``score = w.h + b + <embedding(label), h>`` with ``h`` the features of the last convolution.
    Piecewise linear in the image: its second derivative there is zero wherever it exists. Nothing
    is normalised across the batch, so a score, and with it the gradient a client returns for a row,
    depends on that row alone. No spectral norm either: the gradient penalty already asks for
    slope 1, the usual clipping bound.

    Source: GS-WGAN (arXiv 2006.08265), whose critic is convolutional with a projection head;
    convolutions after Radford et al. (arXiv 1511.06434); projection from Miyato & Koyama
    (arXiv 1802.05637), section 3.
    """

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, width: int = 64) -> None:
        """Build the layers, initialised from torch's global generator.

        Args:
            image_shape: (C, H, W); H and W divisible by 4.
            num_classes: Labels are 0 to ``num_classes - 1``.
            width: Channels at half the size; twice as many at a quarter, four times at an eighth.
        """
        super().__init__()
        self.num_classes = num_classes
        features = 4 * width * math.prod(eighth_of(image_shape))
        self.to_half = nn.Conv2d(image_shape[0], width, 5, stride=2, padding=2)
        self.to_quarter = nn.Conv2d(width, 2 * width, 5, stride=2, padding=2)
        self.to_eighth = nn.Conv2d(2 * width, 4 * width, 5, stride=2, padding=2)
        self.score = nn.Linear(features, 1)
        self.class_embedding = nn.Embedding(num_classes, features)

    def hidden_layers(self) -> tuple[nn.Conv2d, ...]:
        """Return the layers before the three activations."""
        return self.to_half, self.to_quarter, self.to_eighth

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Score images, higher for more real; twice differentiable in image and weights.

        Args:
            images_BCHW: ``(B, C, H, W)`` float32 in [0, 1], real or generated.
            labels_B: ``(B,)`` int64 in ``[0, num_classes)``.

        Returns:
            ``(B,)`` float32, unbounded.
        """
        features = images_BCHW
        for layer in self.hidden_layers():
            features = functional.leaky_relu(layer(features), NEGATIVE_SLOPE)
        features_BP = features.flatten(1)
        projection_B = (self.class_embedding(labels_B) * features_BP).sum(dim=1)
        scores_B: Tensor = self.score(features_BP).squeeze(1) + projection_B
        return scores_B
