import numpy as np
import pytest
import torch
from torch import nn

from fed_gswgan.critics import wgan_gp
from fed_gswgan.critics.wgan_gp import (
    CriticSettings,
    critic_optimizer,
    critic_step,
    draw_images,
    drift_penalty,
    from_state,
    gradient_penalty,
    sample_gradient,
    to_state,
    train_critic,
    warm_start,
    wasserstein_loss,
)
from fed_gswgan.data.client_dataset import ClientDataset
from fed_gswgan.models.critics import ConvCritic, MLPCritic
from fed_gswgan.models.trainer import GeneratorTrainer

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


def make_shard(labels):
    """A shard whose image ``i`` is grey of value ``i / 100``."""
    values = np.arange(len(labels), dtype=np.float32) / 100
    images = np.broadcast_to(values[:, None, None, None], (len(labels), 1, 28, 28)).copy()
    return ClientDataset(("somebody",), images, np.array(labels, dtype=np.int64))


def drawn_indices(images_BCHW):
    return [round(float(image[0, 0, 0]) * 100) for image in images_BCHW]


def build_critic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLPCritic((1, 28, 28), num_classes=3, width=8)


def batches(count, size=4):
    """Sample batches of which batch ``n`` is grey of value ``(n + 1) / 10``."""
    values = (torch.arange(count) + 1) / 10
    samples = values.view(-1, 1, 1, 1, 1).expand(count, size, 1, 28, 28).contiguous()
    return samples, torch.arange(count * size).view(count, size) % 3


def trained(steps=5, seed=0, count=2, shard=None):
    critic, config = build_critic(), CriticSettings(critic_steps=steps)
    optimizer = critic_optimizer(critic, config)
    shard = shard or make_shard([0, 1, 2, 0])
    randomness = np.random.default_rng(seed)
    train_critic(critic, optimizer, shard, *batches(count), config, randomness)
    return critic


def same_weights(first, second):
    return all(map(torch.equal, first.parameters(), second.parameters()))


def test_images_are_drawn_to_the_labels_of_the_batch():
    shard = make_shard([0, 1, 2, 1, 0, 1])
    labels = np.array([1, 0, 2, 1, 1, 0])
    for seed in range(20):
        drawn = drawn_indices(draw_images(shard, labels, np.random.default_rng(seed)))
        assert [shard.labels[index] for index in drawn] == labels.tolist()


def test_every_image_of_a_label_is_drawn_about_equally_often():
    shard = make_shard([0, 1, 1, 0, 1])
    labels = np.ones(600, dtype=np.int64)
    drawn = drawn_indices(draw_images(shard, labels, np.random.default_rng(0)))
    counts = [drawn.count(index) for index in (1, 2, 4)]
    assert sum(counts) == 600
    assert min(counts) > 150


def test_a_label_the_shard_lacks_gets_any_image_of_the_shard():
    labels = np.full(300, 7)
    drawn = drawn_indices(draw_images(make_shard([0, 1, 2]), labels, np.random.default_rng(0)))
    assert set(drawn) == {0, 1, 2}


def test_training_is_decided_by_its_random_generator():
    assert same_weights(trained(seed=1), trained(seed=1))
    assert not same_weights(trained(seed=1), trained(seed=2))


def test_steps_go_round_the_sample_batches(monkeypatch):
    seen = []

    def record(critic, images, samples, *others):
        seen.append(round(float(samples[0, 0, 0, 0]), 3))

    monkeypatch.setattr(wgan_gp, "set_piecewise_linear_gradient", record)
    critic, config = build_critic(), CriticSettings(critic_steps=5)
    optimizer = critic_optimizer(critic, config)
    shard = make_shard([0, 1, 2])
    train_critic(critic, optimizer, shard, *batches(2), config, np.random.default_rng(0))
    assert seen == [0.1, 0.2, 0.1, 0.2, 0.1]


def test_training_never_modifies_the_shard_or_the_samples():
    shard = make_shard([0, 1, 2])
    images, labels = shard.images.copy(), shard.labels.copy()
    samples, sample_labels = batches(1)
    before = samples.clone()
    critic, config = build_critic(), CriticSettings(critic_steps=3)
    optimizer = critic_optimizer(critic, config)
    train_critic(critic, optimizer, shard, samples, sample_labels, config, np.random.default_rng(0))
    assert np.array_equal(shard.images, images)
    assert np.array_equal(shard.labels, labels)
    assert torch.equal(samples, before)


def test_a_drawn_image_is_a_copy():
    shard = make_shard([0])
    draw_images(shard, np.array([0, 0]), np.random.default_rng(0)).fill_(1)
    assert shard.images.max() == 0


def test_training_leaves_the_global_generators_alone():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    trained()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_critic_learns_to_score_images_above_samples():
    shard = make_shard([0, 1, 2])  # nearly black, against samples of grey 0.1
    critic = trained(steps=60, count=1, shard=shard)
    samples, labels = batches(1)
    images = draw_images(shard, labels[0].numpy(), np.random.default_rng(1))
    with torch.no_grad():
        assert critic(images, labels[0]).mean() > critic(samples[0], labels[0]).mean() + 0.5


def test_one_step_follows_the_loss_by_hand_whatever_gradient_was_left_over():
    critic = nn.Linear(2, 1, bias=False)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    critic.weight.grad = torch.full((1, 2), 100.0)

    class Scored(nn.Module):
        def forward(self, images, labels):
            return critic(images.flatten(1)).squeeze(1)

    image, sample = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    config = CriticSettings(gradient_penalty=10.0, drift_penalty=0.5)
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    labels, mix = torch.tensor([0]), torch.tensor([0.5])
    critic_step(Scored(), optimizer, image, sample, labels, mix, config)
    # wasserstein: sample - image                    = (-1,  1)
    # penalty:     10 x 2 (5 - 1) x (3, 4) / 5       = (48, 64)
    # drift:       0.5 x 2 x score 3 x image         = ( 3,  0)
    # weight:      (3, 4) - 0.1 x (50, 65)
    assert critic.weight.flatten().tolist() == pytest.approx([-2.0, -2.5])


def test_optimizer_takes_its_rate_and_moments_from_the_settings():
    config = CriticSettings(critic_learning_rate=0.25, adam_beta1=0.1)
    group = critic_optimizer(build_critic(), config).param_groups[0]
    assert (group["lr"], group["betas"]) == (0.25, (0.1, 0.9))


ASKED_LABELS = torch.tensor([0, 1, 2])


@pytest.fixture
def critic():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLPCritic((1, 28, 28), num_classes=3, width=8)


@pytest.fixture
def samples():
    return torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_gradient_is_that_of_the_negated_score_by_finite_differences(critic, samples):
    critic, samples = critic.double(), samples.double()
    gradients = sample_gradient(critic, samples, ASKED_LABELS)
    step = 1e-6
    with torch.no_grad():
        for row, y, x in [(0, 3, 4), (1, 14, 14), (2, 27, 0), (2, 9, 21)]:
            up, down = samples.clone(), samples.clone()
            up[row, 0, y, x] += step
            down[row, 0, y, x] -= step
            slope = (-critic(up, ASKED_LABELS).sum() + critic(down, ASKED_LABELS).sum()) / (
                2 * step
            )
            assert gradients[row, 0, y, x].item() == pytest.approx(slope.item(), abs=1e-7)


def test_gradient_has_the_shape_and_dtype_of_the_samples(critic, samples):
    gradients = sample_gradient(critic, samples, ASKED_LABELS)
    assert gradients.shape == samples.shape
    assert gradients.dtype == torch.float32
    assert not gradients.requires_grad


def test_a_small_step_against_the_gradient_raises_the_score(critic, samples):
    moved = samples - 1e-3 * sample_gradient(critic, samples, ASKED_LABELS)
    with torch.no_grad():
        assert (critic(moved, ASKED_LABELS) > critic(samples, ASKED_LABELS)).all()


def test_a_row_does_not_depend_on_other_rows(critic, samples):
    gradients = sample_gradient(critic, samples, ASKED_LABELS)
    other = samples.clone()
    other[1:] = 1 - other[1:]
    changed = sample_gradient(critic, other, torch.tensor([0, 0, 0]))
    assert torch.equal(changed[0], gradients[0])
    assert not torch.allclose(changed[1], gradients[1])


def test_loss_is_a_sum_so_doubling_the_batch_leaves_every_row_unchanged(critic, samples):
    gradients = sample_gradient(critic, samples, ASKED_LABELS)
    doubled = sample_gradient(
        critic, torch.cat([samples, samples]), torch.cat([ASKED_LABELS, ASKED_LABELS])
    )
    torch.testing.assert_close(doubled, torch.cat([gradients, gradients]))


def test_critic_and_samples_keep_the_gradients_they_had(critic, samples):
    first, *others = critic.parameters()
    first.grad = torch.ones_like(first)
    sample_gradient(critic, samples, ASKED_LABELS)
    assert (first.grad == 1).all()
    assert all(parameter.grad is None for parameter in others)
    assert samples.grad is None
    assert not samples.requires_grad


CRITICS = [lambda: MLPCritic((1, 28, 28), 3, 16), lambda: ConvCritic((1, 28, 28), 3, 2)]


def build(critic_of, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        critic = critic_of()
    return critic, torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))


def train(critic, optimizer, steps, first=0):
    for step in range(first, first + steps):
        randomness = torch.Generator().manual_seed(step)
        images = torch.rand(4, 1, 28, 28, generator=randomness)
        optimizer.zero_grad()
        critic(images, torch.tensor([0, 1, 2, 0])).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("critic_of", CRITICS, ids=["mlp", "conv"])
def test_training_goes_on_to_the_bit_from_the_state(critic_of):
    critic, optimizer = build(critic_of, seed=1)
    train(critic, optimizer, steps=3)
    state = to_state(critic, optimizer)
    assert state["steps"].tolist() == [3]
    assert state["critic"].dtype == np.float32
    assert state["critic"].shape == (3, sum(p.numel() for p in critic.parameters()))

    restored, restored_optimizer = build(critic_of, seed=2)
    from_state(restored, restored_optimizer, state)
    again = to_state(restored, restored_optimizer)
    assert again["critic"].tobytes() == state["critic"].tobytes()
    assert again["steps"].tolist() == [3]

    train(critic, optimizer, steps=3, first=3)
    train(restored, restored_optimizer, steps=3, first=3)
    after, after_restored = to_state(critic, optimizer), to_state(restored, restored_optimizer)
    assert after_restored["critic"].tobytes() == after["critic"].tobytes()
    assert after_restored["steps"].tolist() == after["steps"].tolist() == [6]
    assert not np.array_equal(after["critic"], state["critic"])


def test_rows_are_weights_and_both_moments():
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=2)
    vector = to_state(critic, optimizer)["critic"]
    first = next(critic.parameters())
    state = optimizer.state[first]
    for row, expected in zip(vector, (first, state["exp_avg"], state["exp_avg_sq"]), strict=True):
        assert np.array_equal(row[: first.numel()], expected.detach().numpy().ravel())


def test_state_is_a_copy_in_both_directions():
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=1)
    state = to_state(critic, optimizer)
    vector = state["critic"]
    kept = vector.copy()
    train(critic, optimizer, steps=1)
    assert np.array_equal(vector, kept)
    restored, restored_optimizer = build(CRITICS[0], seed=2)
    from_state(restored, restored_optimizer, state)
    train(restored, restored_optimizer, steps=1)
    assert np.array_equal(vector, kept)


@pytest.mark.parametrize("change", [lambda v: v[:, :-1], lambda v: v[:2], lambda v: v.ravel()])
def test_state_of_another_critic_is_refused(change):
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=1)
    state = to_state(critic, optimizer)
    with pytest.raises(ValueError, match=r"critic state has shape .* must be \(3, "):
        from_state(critic, optimizer, state | {"critic": change(state["critic"])})


@pytest.fixture
def shard():
    images = np.random.default_rng(5).random((4, 1, 28, 28), dtype=np.float32)
    return ClientDataset(("somebody",), images, np.array([0, 1, 2, 0], dtype=np.int64))


def warm(shard, steps, seed=0, critic_steps=2, start=None):
    """Return a critic after its warm start, its optimizer and the spent random generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = MLPCritic((1, 28, 28), num_classes=3, width=8)
    if start is not None:
        with torch.no_grad():
            critic.score.weight.fill_(start)
    config = CriticSettings(warm_start_steps=steps, critic_steps=critic_steps)
    optimizer = critic_optimizer(critic, config)
    randomness = np.random.default_rng(seed)
    warm_start(critic, optimizer, shard, 3, config, randomness)
    return critic, optimizer, randomness


def test_zero_steps_change_neither_critic_nor_optimizer_nor_randomness(shard):
    critic, optimizer, randomness = warm(shard, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert same_weights(critic, MLPCritic((1, 28, 28), num_classes=3, width=8))
    assert optimizer.state_dict()["state"] == {}
    assert randomness.random() == np.random.default_rng(0).random()


def test_warm_start_is_decided_by_its_random_generator(shard):
    assert same_weights(warm(shard, 2, seed=1)[0], warm(shard, 2, seed=1)[0])
    assert not same_weights(warm(shard, 2, seed=1)[0], warm(shard, 2, seed=2)[0])


@pytest.mark.parametrize("critic_steps", [1, 20])
def test_every_generator_step_is_five_updates_of_the_critic_however_rounds_train(
    shard, critic_steps
):
    _, optimizer, _ = warm(shard, 3, critic_steps=critic_steps)
    assert {int(state["step"]) for state in optimizer.state.values()} == {15}


@pytest.fixture
def generator_steps(monkeypatch):
    """Gradient norms of the steps of the generator that is thrown away."""
    norms, step = [], GeneratorTrainer.step

    def counted(trainer, *inputs):
        norms.append(step(trainer, *inputs))
        return norms[-1]

    monkeypatch.setattr(GeneratorTrainer, "step", counted)
    return norms


def test_the_critic_is_warmed_against_a_generator_that_learns_too(shard, generator_steps):
    warm(shard, 3)
    assert len(generator_steps) == 3
    assert min(generator_steps) > 0


def test_a_critic_that_diverged_neither_stops_its_client_nor_steps_the_generator(
    shard, generator_steps
):
    critic, _, _ = warm(shard, 2, start=float("nan"))
    assert critic.score.weight.isnan().all()
    assert generator_steps == []


def test_warm_start_leaves_the_shard_and_the_global_generators_alone(shard):
    images = shard.images.copy()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    warm(shard, 2)
    assert np.array_equal(shard.images, images)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
