import numpy as np
import torch

from fed_gswgan.training.critic_task import carry_out, carry_out_each
from fed_gswgan.training.critic_training import train_critic
from fed_gswgan.training.sample_gradient import sample_gradient
from tests.fed_gswgan.training.critic_tasks import task_of


def test_a_task_is_to_train_and_then_to_differentiate():
    task, by_hand = task_of(0), task_of(0)
    found = carry_out(task)

    train_critic(
        by_hand.critic, by_hand.optimizer, by_hand.shard, by_hand.samples_NBCHW,
        by_hand.labels_NB, by_hand.config, by_hand.randomness,
    )  # fmt: skip
    expected = sample_gradient(by_hand.critic, by_hand.samples_BCHW, by_hand.labels_B)

    assert torch.equal(found, expected)
    assert all(map(torch.equal, task.critic.parameters(), by_hand.critic.parameters()))


def test_a_task_that_fails_is_its_own_exception_and_stops_no_other():
    outcomes = carry_out_each([task_of(0), task_of(1, shard=("no", "shard")), task_of(2)])

    assert torch.equal(outcomes[0], carry_out(task_of(0)))
    assert isinstance(outcomes[1], AttributeError)
    assert torch.equal(outcomes[2], carry_out(task_of(2)))


def test_a_task_shows_nothing_of_what_it_holds():
    task = task_of(0)
    assert (repr(task), str(task)) == ("CriticTask(private)",) * 2
    assert np.array_equal(task.shard.labels[:3], [0, 1, 2])
