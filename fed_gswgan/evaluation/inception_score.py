"""Inception score in the eyes of a classifier trained on real images."""

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore

from fed_gswgan.evaluation.classifier import READING_BATCH_SIZE
from fed_gswgan.seeding import SeedStream
from fed_gswgan.validation import at_least

SPLITS = 10


def inception_score(judge: nn.Module, samples_NCHW: Tensor, seed: int) -> float:
    """Return exp(E[KL(p(y|x) || p(y))]), the mean over 10 random splits of the samples.

    Between 1 and the number of classes: high where the judge is sure of each sample and all
    classes occur. It sees neither whether the class is the one asked for nor variety within a
    class, and one perfect sample of each class reaches the top. The judge is not Inception-v3,
    so compare only scores given by the same judge for as many samples; a split with few samples
    for each class scores low.

    Args:
        judge: in eval mode; p(y|x) is the softmax of its logits.
        samples_NCHW: float32 (N, 1, 28, 28) in [0, 1], N >= 2; labels uniform over the classes.
        seed: of the random splits; the caller's random state is left as it was.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    at_least(2, inception_score_samples=len(samples_NCHW))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        score = InceptionScore(feature=_Logits(judge), splits=min(SPLITS, len(samples_NCHW) // 2))
    with torch.no_grad():
        for batch in torch.split(samples_NCHW, READING_BATCH_SIZE):
            score.update(batch)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # The splits come from the global generator; one split has no standard deviation.
            torch.default_generator.manual_seed(SeedStream(seed).torch_seed("inception splits"))
            warnings.filterwarnings("ignore", message=".*degrees of freedom")
            mean, _ = score.compute()
    return float(mean)


class _Logits(nn.Module):
    """The judge's logits in float64: in float32 a class no sample resembles gives 0 * inf."""

    def __init__(self, judge: nn.Module) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BL: Tensor = self.judge(images_BCHW)
        return logits_BL.cpu().double()
