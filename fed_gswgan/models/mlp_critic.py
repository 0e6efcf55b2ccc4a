"""A conditional critic small enough for a CPU; piecewise linear, with a projection head.

Shapes: B batch, C channels, H and W image.
"""

from typing import cast

from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2  # of the activations; source: DCGAN, arXiv 1511.06434, section 4


class MLPCritic(nn.Module):
    """784-width-width with leaky ReLU; score = linear(h) + <embedding(label), h>.

    ``embedding_stddev`` is that of the embedding's first weights. At the usual 1 a new critic's
    gradient is a random direction for each class, which a critic that is seldom asked is long in
    forgetting; a discriminator under DP-SGD, though, learns classes from nothing else.

    Source: the projection head is that of Miyato and Koyama, arXiv 1802.05637.
    """

    def __init__(self, num_classes: int, width: int = 256, embedding_stddev: float = 1.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, width),
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
