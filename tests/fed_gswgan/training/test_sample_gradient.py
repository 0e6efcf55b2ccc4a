import pytest
import torch

from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training.sample_gradient import sample_gradient

LABELS = torch.tensor([0, 1, 2])


@pytest.fixture
def critic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLPCritic(num_classes=3, width=8)


@pytest.fixture
def samples():
    return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_gradient_is_that_of_the_negated_score_by_finite_differences(critic, samples):
    critic, samples = critic.double(), samples.double()
    gradients = sample_gradient(critic, samples, LABELS)
    step = 1e-6
    with torch.no_grad():
        for row, y, x in [(0, 3, 4), (1, 14, 14), (2, 27, 0), (2, 9, 21)]:
            up, down = samples.clone(), samples.clone()
            up[row, 0, y, x] += step
            down[row, 0, y, x] -= step
            slope = (-critic(up, LABELS).sum() + critic(down, LABELS).sum()) / (2 * step)
            assert gradients[row, 0, y, x].item() == pytest.approx(slope.item(), abs=1e-7)


def test_gradient_has_the_shape_and_dtype_of_the_samples(critic, samples):
    gradients = sample_gradient(critic, samples, LABELS)
    assert gradients.shape == samples.shape
    assert gradients.dtype == torch.float32
    assert not gradients.requires_grad


def test_a_small_step_against_the_gradient_raises_the_score(critic, samples):
    moved = samples - 1e-3 * sample_gradient(critic, samples, LABELS)
    with torch.no_grad():
        assert (critic(moved, LABELS) > critic(samples, LABELS)).all()


def test_a_row_does_not_depend_on_other_rows(critic, samples):
    gradients = sample_gradient(critic, samples, LABELS)
    other = samples.clone()
    other[1:] = 1 - other[1:]
    changed = sample_gradient(critic, other, torch.tensor([0, 0, 0]))
    assert torch.equal(changed[0], gradients[0])
    assert not torch.allclose(changed[1], gradients[1])


def test_loss_is_a_sum_so_doubling_the_batch_leaves_every_row_unchanged(critic, samples):
    gradients = sample_gradient(critic, samples, LABELS)
    doubled = sample_gradient(critic, torch.cat([samples, samples]), torch.cat([LABELS, LABELS]))
    torch.testing.assert_close(doubled, torch.cat([gradients, gradients]))


def test_critic_and_samples_keep_the_gradients_they_had(critic, samples):
    first, *others = critic.parameters()
    first.grad = torch.ones_like(first)
    sample_gradient(critic, samples, LABELS)
    assert (first.grad == 1).all()
    assert all(parameter.grad is None for parameter in others)
    assert samples.grad is None
    assert not samples.requires_grad


def test_in_bfloat16_it_is_near_and_of_the_samples_own_type(critic, samples):
    exact = sample_gradient(critic, samples, LABELS).flatten(1)
    rounded = sample_gradient(critic, samples, LABELS, "bfloat16").flatten(1)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (torch.cosine_similarity(rounded, exact) > 0.95).all()
    assert rounded.norm(dim=1).tolist() == pytest.approx(exact.norm(dim=1).tolist(), rel=0.05)
