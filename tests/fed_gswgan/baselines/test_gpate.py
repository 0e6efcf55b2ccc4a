import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.gpate import (
    BINS,
    SMALL,
    LinearTeachers,
    Teachers,
    confident_winners,
    draw_shard_batches,
    train,
    vote,
)
from fed_gswgan.privacy.noise import SeededNoise

LEARNING_RATE = 1e-2
SAMPLES_BP = torch.rand((4, 784), generator=torch.Generator().manual_seed(2))
LABELS_B = torch.tensor([0, 1, 2, 0])
PROJECTION_PK = torch.randn((784, 5), generator=torch.Generator().manual_seed(3))


def teachers_of(kind, images_MSP, labels_MS):
    width = () if kind is LinearTeachers else (4,)
    return kind(images_MSP, labels_MS, 3, *width, LEARNING_RATE, np.random.default_rng(0))


def shards(count: int = 3, size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images_MSP = torch.rand((count, size, 784), generator=generator)
    return images_MSP, torch.randint(3, (count, size), generator=generator)


def trained(kind, images_MSP, labels_MS, samples_BP=SAMPLES_BP, steps=3):
    teachers = teachers_of(kind, images_MSP, labels_MS)
    for _ in range(steps):
        teachers.train(samples_BP, LABELS_B, 2)
    return teachers


@pytest.mark.parametrize("kind", [Teachers, LinearTeachers])
def test_another_record_changes_what_its_own_teacher_says_alone(kind):
    images_MSP, labels_MS = shards()
    changed_MSP = images_MSP.clone()
    changed_MSP[1, :] = 0.0
    said = [
        trained(kind, data_MSP, labels_MS).projected_gradients(SAMPLES_BP, LABELS_B, PROJECTION_PK)
        for data_MSP in (images_MSP, changed_MSP)
    ]
    assert said[0].shape == (3, 4, 5)
    same = [torch.equal(before, after) for before, after in zip(*said, strict=True)]
    assert same == [True, False, True]


@pytest.mark.parametrize("kind", [Teachers, LinearTeachers])
def test_training_tells_images_from_samples(kind):
    images_MSP, labels_MS = shards()
    bright_MSP = 0.5 + images_MSP / 2
    teachers = trained(kind, bright_MSP, labels_MS, SAMPLES_BP / 2, steps=60)
    dark_MBP = (SAMPLES_BP / 2).expand(3, -1, -1)
    fake_MB = teachers._logits(dark_MBP, LABELS_B.expand(3, -1))
    assert teachers._logits(bright_MSP, labels_MS).mean() > 0 > fake_MB.mean()


def test_a_step_against_the_gradient_makes_a_sample_more_real():
    teachers = teachers_of(Teachers, *shards())
    gradients_MBP = teachers.projected_gradients(SAMPLES_BP, LABELS_B, torch.eye(784))
    moved_BP = SAMPLES_BP.clone()
    moved_BP[2] -= gradients_MBP[0, 2] / gradients_MBP[0, 2].norm()
    expanded = LABELS_B.expand(3, -1)
    before_MB = teachers._logits(SAMPLES_BP.expand(3, -1, -1), expanded)
    after_MB = teachers._logits(moved_BP.expand(3, -1, -1), expanded)
    assert after_MB[0, 2] > before_MB[0, 2]


def test_the_projected_gradients_are_those_of_autograd():
    teachers = trained(LinearTeachers, *shards())
    inputs_BP = SAMPLES_BP.clone().requires_grad_()
    for teacher, (templates_LP, offsets_L) in enumerate(
        zip(teachers._templates_MLP, teachers._offsets_ML, strict=True)
    ):
        logits_B = (templates_LP[LABELS_B] * inputs_BP).sum(1) + offsets_L[LABELS_B]
        (gradients_BP,) = torch.autograd.grad(functional.softplus(-logits_B).sum(), inputs_BP)
        expected_BK = gradients_BP @ PROJECTION_PK
        found_MBK = teachers.projected_gradients(SAMPLES_BP, LABELS_B, PROJECTION_PK)
        assert torch.allclose(found_MBK[teacher], expected_BK, atol=1e-5)


def test_a_step_is_adam_s_on_the_gradient_of_autograd():
    images_MSP, labels_MS = shards(size=1)  # any draw of a batch is the one image
    teachers = teachers_of(LinearTeachers, images_MSP, labels_MS)
    templates_MLP = torch.zeros(3, 3, 784, requires_grad=True)
    offsets_ML = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.Adam([templates_MLP, offsets_ML], lr=LEARNING_RATE, betas=(0.5, 0.999))
    for _ in range(3):
        teachers.train(SAMPLES_BP, LABELS_B, 2)
        loss = torch.zeros(())
        for teacher in range(3):
            label = labels_MS[teacher, 0]
            templates_LP, offsets_L = templates_MLP[teacher], offsets_ML[teacher]
            real = templates_LP[label] @ images_MSP[teacher, 0] + offsets_L[label]
            fake_B = (templates_LP[LABELS_B] * SAMPLES_BP).sum(1) + offsets_L[LABELS_B]
            loss = loss + functional.softplus(-real) + functional.softplus(fake_B).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.allclose(teachers._templates_MLP, templates_MLP, atol=1e-5)
    assert torch.allclose(teachers._offsets_ML, offsets_ML, atol=1e-5)


def test_every_teacher_gets_images_of_its_own_shard_with_their_labels():
    numbers_MS = torch.arange(12).view(3, 4)
    images_MSP = numbers_MS[:, :, None].expand(3, 4, 5).float()
    images_MRP, labels_MR = draw_shard_batches(images_MSP, numbers_MS, 50, np.random.default_rng(0))
    assert images_MRP.shape == (3, 50, 5)
    assert torch.equal(images_MRP, labels_MR[:, :, None].expand(3, 50, 5).float())
    for teacher in range(3):
        assert set(labels_MR[teacher].tolist()) == set(numbers_MS[teacher].tolist())


def test_a_query_costs_what_its_two_noisy_counts_cost():
    votes, threshold = replace(SMALL, threshold_noise_ratio=6.0).releases(50.0)
    assert votes.mu**2 == pytest.approx(2 / 50**2)
    assert threshold.mu**2 == pytest.approx(1 / 300**2)


def test_linear_teachers_stay_within_the_same_epsilon_and_learn_the_classes():
    images_NCHW = torch.zeros(80, 1, 28, 28)
    labels_N = torch.arange(80) % 2
    images_NCHW[labels_N == 0, :, :14] = 1.0  # ink above, or below
    images_NCHW[labels_N == 1, :, 14:] = 1.0
    settings = replace(
        SMALL, teachers=40, teacher_learning_rate=1e-2, steps=150, batch_size=8, projection_dim=20,
        generator="shallow", generator_width=32, generator_learning_rate=1e-2, latent_dim=2,
    )  # fmt: skip
    baseline = train(images_NCHW, labels_N, 2, settings, 1e6, 1e-5, 0)
    assert epsilon_of(baseline.releases, 1e-5) <= 1e6
    samples_BCHW = baseline.sampler(torch.tensor([0, 0, 1, 1]), 0)
    above_B = samples_BCHW[:, 0, :14].mean((1, 2)) - samples_BCHW[:, 0, 14:].mean((1, 2))
    assert above_B[:2].min() > 0.1
    assert above_B[2:].max() < -0.1


class NoNoise:
    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        return np.asarray(values, dtype=np.float64)


def test_another_teacher_moves_counts_by_root_two_and_the_largest_by_one():
    draws = torch.Generator().manual_seed(0)
    coordinates_MBK = torch.randn(9, 3, 4, generator=draws)
    for outlier in (torch.full((3, 4), math.nan), torch.full((3, 4), 1e30), torch.randn(3, 4)):
        changed_MBK = coordinates_MBK.clone()
        changed_MBK[5] = outlier
        before_BKV, after_BKV = vote(coordinates_MBK, 1.0), vote(changed_MBK, 1.0)
        assert (after_BKV.sum(axis=2) == 9).all()
        squared_BK = ((after_BKV - before_BKV) ** 2).sum(axis=2)
        assert set(squared_BK.ravel().tolist()) <= {0, 2}
        assert np.abs(after_BKV.max(axis=2) - before_BKV.max(axis=2)).max() <= 1


def test_votes_go_to_the_bin_of_the_coordinate():
    coordinates_MBK = torch.tensor([-5.0, -0.95, -0.05, 0.05, 0.95, 5.0])[:, None, None]
    counts_BKV = vote(coordinates_MBK, 1.0)
    assert counts_BKV[0, 0].tolist() == [2, 0, 0, 0, 1, 1, 0, 0, 0, 2]


def test_a_winner_needs_half_of_the_teachers():
    counts_BKV = np.zeros((1, 2, BINS), dtype=np.int64)
    counts_BKV[0, 0, [3, 4]] = 5, 5
    counts_BKV[0, 1, [3, 4, 5]] = 4, 3, 3
    winners_BK, enough_BK = confident_winners(counts_BKV, 10, 1.0, 1.0, NoNoise())
    assert winners_BK.tolist() == [[3, 3]]
    assert enough_BK.tolist() == [[True, False]]


def test_noise_is_added_to_every_count_and_to_the_largest():
    counts_BKV = np.zeros((50, 40, BINS), dtype=np.int64)
    counts_BKV[..., 7] = 10
    noise = SeededNoise(np.random.default_rng(0))
    winners_BK, enough_BK = confident_winners(counts_BKV, 20, 100.0, 600.0, noise)
    shares = np.bincount(winners_BK.ravel(), minlength=BINS) / winners_BK.size
    assert (abs(shares - 1 / BINS) < 0.05).all()
    assert 0.45 < enough_BK.mean() < 0.55
