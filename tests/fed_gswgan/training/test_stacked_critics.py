import pytest
import torch
from torch.func import stack_module_state
from torch.nn.utils import parametrizations

from fed_gswgan.training import stacked_critics
from fed_gswgan.training.critic_training import critic_step
from fed_gswgan.training.critic_vector import to_vector
from fed_gswgan.training.linear_layer import linear_layer
from fed_gswgan.training.patch_layer import patch_layer
from fed_gswgan.training.piecewise_linear_gradient import piecewise_linear_gradient
from fed_gswgan.training.stacked_critics import StackedCritics, _of_each, _WrittenOutGradient
from tests.fed_gswgan.training.critic_tasks import CLASSES, task_of

CPU = torch.device("cpu")


def members(*tasks):
    return [(task.critic, task.optimizer) for task in tasks]


def batches(count, size=4):
    """Images, samples, labels and mixing points of so many critics' own batches."""
    draws = torch.Generator().manual_seed(0)
    images, samples = torch.rand(2, count, size, 1, 28, 28, generator=draws)
    labels = torch.randint(CLASSES, (count, size), generator=draws)
    return images, samples, labels, torch.rand(count, size, generator=draws)


def state(task):
    return to_vector(task.critic, task.optimizer)


of_both_ways = pytest.mark.parametrize(
    "as_layer", [linear_layer, patch_layer], ids=["processor", "GPU"]
)
of_both_critics = pytest.mark.parametrize("kind", ["mlp", "conv"])


@of_both_ways
@of_both_critics
def test_the_gradient_of_all_is_each_critics_own_in_double_precision(kind, as_layer):
    critics = [task_of(k, kind, critic_width=16).critic.double() for k in range(3)]
    weights, _ = stack_module_state(critics)
    images, samples, labels, mix = batches(3, size=16)
    inputs = images.double(), samples.double(), labels, mix.double()
    config = task_of(0).config

    written_out = _WrittenOutGradient(critics[0], config, as_layer)
    named = {f"critic.{name}": stack.detach() for name, stack in weights.items()}
    together = _of_each(written_out, named, *inputs)
    for position, critic in enumerate(critics):
        alone = piecewise_linear_gradient(critic, *(part[position] for part in inputs), config)
        assert together.keys() == alone.keys()
        for name in alone:
            torch.testing.assert_close(together[name][position], alone[name], msg=name)


@of_both_ways
@of_both_critics
def test_a_step_is_that_of_each_critic_by_its_own_count_of_steps(kind, as_layer, monkeypatch):
    monkeypatch.setattr(stacked_critics, "linear_layer", as_layer)
    tasks, others = ([task_of(k, kind, rounds_before=k) for k in range(3)] for _ in range(2))
    stacked = StackedCritics(members(*tasks), tasks[0].config, CPU)
    stacked.step(*batches(3))
    stacked.write_back()
    for position, task in enumerate(others):
        own = [part[position] for part in batches(3)]
        critic_step(task.critic, task.optimizer, *own, task.config)
        (found, steps), (expected, expected_steps) = state(tasks[position]), state(task)
        assert steps == expected_steps == 3 * position + 1
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_members_change_when_they_are_written_back_and_not_before():
    task, untouched = task_of(0, rounds_before=1), task_of(0, rounds_before=1)
    stacked = StackedCritics(members(task), task.config, CPU)
    stacked.step(*batches(1))
    assert (state(task)[0] == state(untouched)[0]).all()
    assert state(task)[1] == 3
    stacked.write_back()
    assert (state(task)[0] != state(untouched)[0]).any()
    assert state(task)[1] == 4


def test_stacking_changes_neither_global_generators_nor_gradients():
    task, before = task_of(0), torch.get_rng_state()
    stacked = StackedCritics(members(task), task.config, CPU)
    stacked.step(*batches(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in task.critic.parameters())


@pytest.mark.parametrize(
    "other",
    [
        task_of(1, classes=CLASSES + 1),
        task_of(1, critic_width=16),
        task_of(1, critic_learning_rate=0.5),
        task_of(1, "conv"),
    ],
    ids=["classes", "width", "learning rate", "kind"],
)
def test_critics_that_differ_are_not_stacked(other):
    task = task_of(0)
    with pytest.raises(ValueError, match="must be alike"):
        StackedCritics(members(task, other), task.config, CPU)


def test_critics_whose_gradient_is_not_written_out_are_not_stacked():
    task = task_of(0)
    parametrizations.spectral_norm(task.critic.features[1])
    with pytest.raises(ValueError, match="MLPCritic must have a gradient that is written out"):
        StackedCritics(members(task), task.config, CPU)
