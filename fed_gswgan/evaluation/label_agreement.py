"""Does a sample show the class it was asked to show?"""

from torch import Tensor

from fed_gswgan.evaluation.classifier import ImageClassifier, accuracy


def label_agreement(judge: ImageClassifier, samples_NCHW: Tensor, labels_N: Tensor) -> float:
    """Return the share of samples in [0, 1] that the judge takes for the class asked for.

    Chance is one over the number of classes. It sees neither realism nor variety: one
    recognisable sample of each class, repeated, reaches 1. The judge errs on real images as
    well; ``judge_balanced_accuracy`` tells how often.

    Args:
        judge: a classifier of real images, in eval mode.
        samples_NCHW: float32 (N, 1, 28, 28) in [0, 1].
        labels_N: the classes asked for, int64, as many of each.
    """
    return accuracy(judge, samples_NCHW, labels_N)
