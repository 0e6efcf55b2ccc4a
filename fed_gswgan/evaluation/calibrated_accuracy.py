"""What is left of real data's accuracy when classifiers train on samples instead."""

from collections.abc import Mapping
from statistics import fmean

from fed_gswgan.validation import positive


def average_accuracy(accuracies: Mapping[str, float]) -> float:
    """Return the mean accuracy in [0, 1] over the classifiers.

    Args:
        accuracies: on real test images, by classifier.
    """
    return fmean(accuracies.values())


def calibrated_accuracy(on_samples: Mapping[str, float], on_real: Mapping[str, float]) -> float:
    """Return the mean over classifiers of accuracy after samples / accuracy after real images.

    1: samples serve as well as real images. A classifier that does badly on real images counts as
    much as any other. This reading comes closer to the published figures than the ratio of means
    does; the published text was not at hand.

    Args:
        on_samples: accuracy on real test images after training on samples, by classifier.
        on_real: the same after training on as many real images.

    Raises:
        ValueError: not the same classifiers, or one with no accuracy on real images at all.
    """
    _require_the_same_classifiers(on_samples, on_real)
    return fmean(on_samples[name] / on_real[name] for name in on_samples)


def ratio_of_mean_accuracies(
    on_samples: Mapping[str, float], on_real: Mapping[str, float]
) -> float:
    """Return the mean accuracy after samples / the mean accuracy after real images.

    The other reading of "calibrated accuracy"; see there for arguments and errors.
    """
    _require_the_same_classifiers(on_samples, on_real)
    return average_accuracy(on_samples) / average_accuracy(on_real)


def _require_the_same_classifiers(
    on_samples: Mapping[str, float], on_real: Mapping[str, float]
) -> None:
    if set(on_samples) != set(on_real):
        different = ", ".join(sorted(set(on_samples) ^ set(on_real)))
        raise ValueError(f"classifiers {different}: must be measured on samples and on real images")
    for accuracy in on_real.values():
        positive(accuracy_on_real_images=accuracy)
