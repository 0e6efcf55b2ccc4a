import pytest
import torch
from torch import nn

from fed_gswgan.training.critic_loss import drift_penalty, gradient_penalty, wasserstein_loss

LABELS = torch.tensor([0, 0])
MIX = torch.tensor([0.0, 1.0])


class LinearCritic(nn.Module):
    """Scores <weight, image>: its gradient is the weight, everywhere."""

    def __init__(self, *weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images, labels):
        return images.flatten(1) @ self.weight


class QuadraticCritic(nn.Module):
    """Scores half the squared norm: its gradient is the image itself."""

    def forward(self, images, labels):
        return images.flatten(1).square().sum(dim=1) / 2


class LabelCritic(nn.Module):
    """Its slope is the label."""

    def forward(self, images, labels):
        return labels * images.flatten(1)[:, 0]


def pixels(*rows):
    return torch.tensor(rows).view(len(rows), 1, 1, -1)


def test_wasserstein_loss_is_mean_sample_score_minus_mean_image_score():
    # (0 - 4) / 2 - (1 + 3) / 2
    assert wasserstein_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, -4.0])) == -4


def test_drift_penalty_is_the_mean_squared_score():
    assert drift_penalty(torch.tensor([1.0, -2.0])) == 2.5  # (1 + 4) / 2


@pytest.mark.parametrize(
    ("weight", "penalty"), [((3.0, 4.0), 16.0), ((0.6, 0.8), 0.0), ((0.0, 0.0), 1.0)]
)
def test_penalty_of_a_linear_critic_is_the_squared_distance_of_its_slope_from_one(weight, penalty):
    images, samples = pixels((1.0, 0.0), (0.0, 1.0)), pixels((0.5, 0.5), (0.0, 0.0))
    found = gradient_penalty(LinearCritic(*weight), images, samples, LABELS, MIX)
    assert found.item() == pytest.approx(penalty, abs=1e-6)


@pytest.mark.parametrize(("mix", "slope"), [(0.0, 0.0), (0.6, 3.0), (1.0, 5.0)])
def test_penalty_is_evaluated_between_sample_at_0_and_image_at_1(mix, slope):
    images, samples = pixels((3.0, 4.0)), pixels((0.0, 0.0))
    found = gradient_penalty(
        QuadraticCritic(), images, samples, torch.tensor([0]), torch.tensor([mix])
    )
    assert found.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_penalty_is_the_mean_over_rows_each_with_its_own_mix():
    images, samples = pixels(*[(3.0, 4.0)] * 3), pixels(*[(0.0, 0.0)] * 3)
    mix = torch.tensor([0.0, 0.6, 1.0])  # slopes 0, 3, 5
    found = gradient_penalty(QuadraticCritic(), images, samples, torch.zeros(3), mix)
    assert found.item() == pytest.approx((1 + 4 + 16) / 3, rel=1e-5)


def test_penalty_scores_every_row_under_its_label():
    images, samples = pixels((1.0,), (1.0,)), pixels((0.0,), (0.0,))
    found = gradient_penalty(LabelCritic(), images, samples, torch.tensor([1, 3]), MIX)
    assert found.item() == 2  # slopes 1 and 3: (0 + 4) / 2


def test_penalty_teaches_the_critic_through_its_gradient():
    critic = LinearCritic(3.0, 4.0)
    images, samples = pixels((1.0, 0.0), (0.0, 1.0)), pixels((0.5, 0.5), (0.0, 0.0))
    gradient_penalty(critic, images, samples, LABELS, MIX).backward()
    # 2 (5 - 1) x (3, 4) / 5
    assert critic.weight.grad.tolist() == pytest.approx([4.8, 6.4])


def test_penalty_leaves_images_and_samples_as_they_are():
    images, samples = pixels((1.0, 0.0), (0.0, 1.0)), pixels((0.5, 0.5), (0.0, 0.0))
    before = images.clone(), samples.clone()
    gradient_penalty(LinearCritic(3.0, 4.0), images, samples, LABELS, MIX)
    assert torch.equal(images, before[0])
    assert torch.equal(samples, before[1])
    assert not images.requires_grad
    assert not samples.requires_grad
