"""Where images become the vectors that distances between sets of images are measured in."""

from torch import Tensor, nn

from fed_gswgan.evaluation.score_classifier import ScoreClassifier


class FeatureExtractor(nn.Module):
    """Maps float32 (B, 1, 28, 28) in [0, 1] to float64 features (B, F) on the CPU.

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

    def __init__(self, classifier: ScoreClassifier, description: str = "classifier") -> None:
        super().__init__()
        self.layers = classifier.features
        self.num_features = classifier.logits.in_features
        self.description = description

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features."""
        features_BF: Tensor = self.layers(images_BCHW)
        return features_BF.cpu().double()
