"""Second judge: a reader of drawn characters whose features no method uses.

Distances in features that a method was fitted in flatter it, and a classifier of held-out writers
has seen the images that samples are compared with. This network has seen drawings alone. Its
layers are unlike those of ``fed_gswgan.models.features``: patches, and blocks that mix places and
channels in turn.

Shapes: N images, H and W image, K channels.

Source: patches and blocks after ConvMixer, arXiv 2201.09792, section 2.
"""

from torch import Tensor, nn

PATCH = 4
WIDTH, BLOCKS, KERNEL = 96, 4, 5


class StrokeJudge(nn.Module):
    """Classifier of one-channel images whose sides are multiples of 4."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = _normed(nn.Conv2d(1, WIDTH, PATCH, PATCH))
        self.places = nn.ModuleList(
            _normed(nn.Conv2d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2, groups=WIDTH))
            for _ in range(BLOCKS)
        )
        self.channels = nn.ModuleList(_normed(nn.Conv2d(WIDTH, WIDTH, 1)) for _ in range(BLOCKS))
        self.logits = nn.Linear(WIDTH, num_classes)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Return the last block's mean over places, (N, K); images in [0, 1], ink 1."""
        found = self.patches(images_NCHW)
        for places, channels in zip(self.places, self.channels, strict=True):
            found = channels(found + places(found))
        means_NK: Tensor = found.mean((2, 3))
        return means_NK

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return a logit for each class."""
        logits_NL: Tensor = self.logits(self.features(images_NCHW))
        return logits_NL


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GELU(), nn.BatchNorm2d(convolution.out_channels))
