"""One row of the published tables, and the row of real images that calibrates the others."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TableMetrics:
    """One row of a table, with what each figure rests on.

    The accuracies are those of classifiers trained on the samples, on all real test images. Only
    rows of the same data set, size and ``features`` are to be compared.
    """

    dataset: str
    size: str
    seed: int
    inception_score: float  # 1 to the number of classes; its judge is no Inception-v3
    frechet_distance: float  # 0 and up, low is good; FID where ``features`` is Inception-v3
    kernel_distance: float  # about 0 and up, low is good; KID where ``features`` is Inception-v3
    features: str  # that both distances are measured in
    mlp_accuracy: float
    cnn_accuracy: float  # the LeNet's
    average_accuracy: float  # of the twelve classifiers, to which the LeNet does not belong
    calibrated_accuracy: float | None  # mean over classifiers of the ratio to real images
    ratio_of_mean_accuracies: float | None  # the other reading of "calibrated"
    classifier_accuracies: Mapping[str, float]
    score_classifier: str
    score_classifier_accuracy: float  # of the inception score's judge on the real test images
    classifier_samples: int
    score_samples: int
    distance_samples: int
    distance_images: int
    test_images: int
    split: str
    notes: tuple[str, ...]
    seconds: float = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything by name, fit for JSON."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class RealScores(TableMetrics):
    """The row of real images, which calibrates the others; its own calibrated accuracy is 1."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RealScores":
        """Return what ``to_dict`` wrote.

        Raises:
            ValueError: a value is missing or unknown; measure the real images again.
        """
        names = {entry.name for entry in fields(cls)}
        if different := sorted(names ^ set(values)):
            raise ValueError(
                f"scores of real images: {', '.join(different)} must be there once and nothing "
                "else; measure them again"
            )
        return cls(**{**values, "notes": tuple(values["notes"])})
