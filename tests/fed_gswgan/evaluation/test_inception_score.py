import gc

import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.evaluation.distances import inception_score


class ReadsLogits(nn.Module):
    """Takes its logits from the first pixels of the image."""

    def __init__(self, num_classes: int, scale: float) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, : self.num_classes] * self.scale


def one_hot_images(labels: torch.Tensor) -> torch.Tensor:
    images = torch.zeros(len(labels), 28 * 28)
    images[torch.arange(len(labels)), labels] = 1
    return images.reshape(-1, 1, 28, 28)


def reference(logits: np.ndarray) -> float:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    marginal = p.mean(axis=0)
    return float(np.exp((p * np.log(p / marginal)).sum(axis=1).mean()))


def test_one_split_equals_the_formula_in_numpy(monkeypatch):
    monkeypatch.setattr("fed_gswgan.evaluation.distances.SPLITS", 1)
    images = torch.rand(1100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    judge = ReadsLogits(num_classes=6, scale=4.0)
    expected = reference(judge(images).double().numpy())
    assert inception_score(judge, images, seed=0) == pytest.approx(expected, rel=1e-10)


def test_ten_splits_come_near_one_split_of_many_samples():
    images = torch.rand(5000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    judge = ReadsLogits(num_classes=6, scale=4.0)
    expected = reference(judge(images).double().numpy())
    assert inception_score(judge, images, seed=0) == pytest.approx(expected, rel=0.02)


def test_sure_and_even_samples_reach_nearly_the_number_of_classes():
    images = one_hot_images(torch.arange(4000) % 5)
    score = inception_score(ReadsLogits(num_classes=5, scale=50.0), images, seed=0)
    assert 4.9 < score <= 5 + 1e-9


def test_one_class_only_scores_one_even_where_others_underflow_in_float32():
    images = one_hot_images(torch.zeros(100, dtype=torch.int64))
    score = inception_score(ReadsLogits(num_classes=5, scale=300.0), images, seed=0)
    assert score == pytest.approx(1)


def test_an_undecided_judge_scores_one():
    images = one_hot_images(torch.arange(100) % 5)
    assert inception_score(ReadsLogits(5, scale=0.0), images, seed=0) == pytest.approx(1)


@pytest.mark.parametrize("count", [2, 3, 19, 21])
def test_few_samples_give_a_finite_score_without_a_warning(count, recwarn):
    gc.collect()
    recwarn.clear()  # of what another test left to be collected
    images = one_hot_images(torch.arange(count) % 5)
    assert 1 - 1e-9 <= inception_score(ReadsLogits(5, scale=9.0), images, seed=0) <= 5
    assert not recwarn.list


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="samples=1"):
        inception_score(ReadsLogits(5, 1.0), one_hot_images(torch.tensor([0])), seed=0)


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_seed_decides_the_splits():
    images = torch.rand(60, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    judge = ReadsLogits(num_classes=6, scale=4.0)
    assert inception_score(judge, images, seed=1) == inception_score(judge, images, seed=1)
    assert inception_score(judge, images, seed=1) != inception_score(judge, images, seed=2)
