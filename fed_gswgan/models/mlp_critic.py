"""A conditional critic small enough for a CPU; piecewise linear, with a projection head.

Shapes: B batch, C channels, H and W image.
"""

from torch import Tensor, nn


class MLPCritic(nn.Module):
    """784-width-width with leaky ReLU; score = linear(h) + <embedding(label), h>.

    Source: the projection head is that of Miyato and Koyama, arXiv 1802.05637.
    """

    def __init__(self, num_classes: int, width: int = 256) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
        )
        self.score = nn.Linear(width, 1)
        self.class_embedding = nn.Embedding(num_classes, width)

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return scores_B, higher for what looks real; images in [0, 1]."""
        features = self.features(images_BCHW)
        projection = (self.class_embedding(labels_B) * features).sum(dim=1)
        scores_B: Tensor = self.score(features).squeeze(1) + projection
        return scores_B
