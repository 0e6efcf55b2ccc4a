"""What samples are for: training a classifier for real images without seeing a real image."""

from torch import Tensor

from fed_gswgan.evaluation.classifier import accuracy, train_classifier


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
        samples_NCHW: the training set, float32 (N, 1, 28, 28) in [0, 1].
        labels_N: the classes asked for, int64, as many of each.
        test_images_NCHW: held-out real images, in their own class proportions.
        test_labels_N: their labels, int64.
        num_classes: of the classifier.
        seed: of its weights and batches.
        steps: optimizer steps; by default those of ``train_classifier``.
    """
    classifier = train_classifier(samples_NCHW, labels_N, num_classes, seed, steps)
    return accuracy(classifier, test_images_NCHW, test_labels_N)
