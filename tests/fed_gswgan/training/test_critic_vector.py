import numpy as np
import pytest
import torch

from fed_gswgan.models.conv_critic import ConvCritic
from fed_gswgan.models.mlp_critic import MLPCritic
from fed_gswgan.training.critic_vector import from_vector, to_vector

CRITICS = [lambda: MLPCritic(3, 16), lambda: ConvCritic(3, 2)]


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
def test_training_goes_on_to_the_bit_from_the_vector(critic_of):
    critic, optimizer = build(critic_of, seed=1)
    train(critic, optimizer, steps=3)
    vector, steps = to_vector(critic, optimizer)
    assert steps == 3
    assert vector.dtype == np.float32
    assert vector.shape == (3, sum(p.numel() for p in critic.parameters()))

    restored, restored_optimizer = build(critic_of, seed=2)
    from_vector(restored, restored_optimizer, vector, steps)
    again, steps_again = to_vector(restored, restored_optimizer)
    assert again.tobytes() == vector.tobytes()
    assert steps_again == 3

    train(critic, optimizer, steps=3, first=3)
    train(restored, restored_optimizer, steps=3, first=3)
    after, after_restored = to_vector(critic, optimizer), to_vector(restored, restored_optimizer)
    assert after_restored[0].tobytes() == after[0].tobytes()
    assert after_restored[1] == after[1] == 6
    assert not np.array_equal(after[0], vector)


def test_rows_are_weights_and_both_moments():
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=2)
    vector, _ = to_vector(critic, optimizer)
    first = next(critic.parameters())
    state = optimizer.state[first]
    for row, expected in zip(vector, (first, state["exp_avg"], state["exp_avg_sq"]), strict=True):
        assert np.array_equal(row[: first.numel()], expected.detach().numpy().ravel())


def test_vector_is_a_copy_in_both_directions():
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=1)
    vector, steps = to_vector(critic, optimizer)
    kept = vector.copy()
    train(critic, optimizer, steps=1)
    assert np.array_equal(vector, kept)
    restored, restored_optimizer = build(CRITICS[0], seed=2)
    vector.flags.writeable = False  # as it comes from a memory-mapped slot
    from_vector(restored, restored_optimizer, vector, steps)
    train(restored, restored_optimizer, steps=1)
    assert np.array_equal(vector, kept)


@pytest.mark.parametrize("change", [lambda v: v[:, :-1], lambda v: v[:2], lambda v: v.ravel()])
def test_vector_of_another_critic_is_refused(change):
    critic, optimizer = build(CRITICS[0], seed=1)
    train(critic, optimizer, steps=1)
    vector, steps = to_vector(critic, optimizer)
    with pytest.raises(ValueError, match=r"critic state has shape .* must be \(3, "):
        from_vector(critic, optimizer, change(vector), steps)
