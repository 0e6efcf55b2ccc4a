"""How good the judge itself is, on real images it has not seen."""

from typing import NamedTuple

import torch
from torch import Tensor

from fed_gswgan.evaluation.classifier import predicted_labels, train_classifier
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least


class JudgeAccuracy(NamedTuple):
    """Accuracies in [0, 1] on one half of the real images after training on the other half."""

    accuracy: float  # over images: set downstream_accuracy beside it
    balanced_accuracy: float  # mean over classes: set label_agreement beside it


def judge_accuracy(
    images_NCHW: Tensor, labels_N: Tensor, num_classes: int, seed: int, steps: int | None = None
) -> JudgeAccuracy:
    """Train on a random half of the images, class by class, and test on the other half.

    A judge trained on all images is somewhat better than this. Halves are drawn by image and not
    by writer, so a writer may stand in both, which makes the accuracy a little kinder than on
    strangers.

    Args:
        images_NCHW: float32 (N, 1, 28, 28) in [0, 1], N >= 2.
        labels_N: int64.
        num_classes: of the classifier.
        seed: of the halves and of the training.
        steps: optimizer steps; by default those of ``train_classifier``.
    """
    at_least(2, judge_images=len(images_NCHW))
    shuffled = SeedStream(seed).generator("judge halves").permutation(len(labels_N))
    order = torch.from_numpy(shuffled).to(labels_N.device)
    order = order[labels_N[order].argsort(stable=True)]
    train, test = order[::2], order[1::2]

    judge = train_classifier(images_NCHW[train], labels_N[train], num_classes, seed, steps)
    right_N = (predicted_labels(judge, images_NCHW[test]) == labels_N[test]).double()
    by_class = [right_N[labels_N[test] == label].mean() for label in torch.unique(labels_N[test])]
    return JudgeAccuracy(right_N.mean().item(), torch.stack(by_class).mean().item())
