import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations

from fed_gswgan.training import cohort_training
from fed_gswgan.training.cohort_training import carry_out_together
from fed_gswgan.training.critic_task import carry_out
from fed_gswgan.training.critic_training import critic_optimizer
from fed_gswgan.training.critic_vector import to_vector
from fed_gswgan.training_config import AdamConfig
from tests.fed_gswgan.training.critic_tasks import task_of

CPU = torch.device("cpu")

of_both_critics = pytest.mark.parametrize("kind", ["mlp", "conv"])


def cohort(kind="mlp", **settings):
    """Tasks of four clients, of whom the first is new and the last has taken part three times."""
    return [task_of(client, kind, rounds_before=client, **settings) for client in range(4)]


def assert_same(together, alone, tolerance=1e-5):
    """Assert that gradients, weights, moments and counts of steps agree."""
    results = carry_out_together(together, CPU)
    for result, task, other in zip(results, together, alone, strict=True):
        torch.testing.assert_close(result, carry_out(other), rtol=tolerance, atol=tolerance)
        (found, steps), (expected, steps_alone) = (
            to_vector(t.critic, t.optimizer) for t in (task, other)
        )
        assert steps == steps_alone
        np.testing.assert_allclose(found, expected, rtol=10 * tolerance, atol=tolerance)


@pytest.fixture
def stacked(monkeypatch, caplog):
    """Fail the test if critics were trained one by one after all."""
    with caplog.at_level(logging.WARNING):
        yield
    assert "one by one" not in caplog.text


@of_both_critics
@pytest.mark.parametrize("settings", [{}, {"critic_steps": 1}, {"batches": 1}, {"size": 3}])
def test_critics_trained_at_once_are_those_trained_one_by_one(kind, settings, stacked):
    assert_same(cohort(kind, **settings), cohort(kind, **settings))


@of_both_critics
def test_a_cohort_of_one_and_of_nobody_are_cohorts(kind, stacked):
    assert_same([task_of(7, kind)], [task_of(7, kind)])
    assert carry_out_together([], CPU) == []


def test_clients_have_no_influence_on_one_another(stacked):
    among, other = (
        carry_out_together(cohort("conv"), CPU),
        [*cohort("conv")[:2], task_of(9, "conv")],
    )
    for found, expected in zip(carry_out_together(other, CPU)[:2], among[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_critic_that_diverged_leaves_the_others_alone(stacked):
    tasks = cohort("conv")
    with torch.no_grad():
        next(tasks[1].critic.parameters()).fill_(torch.nan)
    results = carry_out_together(tasks, CPU)

    assert not results[1].isfinite().any()
    for position in (0, 2, 3):
        expected = carry_out(cohort("conv")[position])
        torch.testing.assert_close(results[position], expected, rtol=1e-5, atol=1e-5)


@of_both_critics
def test_in_bfloat16_they_agree_to_its_rounding(kind, stacked):
    def gradients(work, compute):
        return torch.stack(work(cohort(kind, critic_compute=compute)))

    def one_by_one(tasks):
        return list(map(carry_out, tasks))

    exact, alone = gradients(one_by_one, "float32"), gradients(one_by_one, "bfloat16")
    together = gradients(lambda tasks: carry_out_together(tasks, CPU), "bfloat16")
    rounding = (alone - exact).norm()

    assert not torch.equal(together, exact)
    assert (together - exact).norm() < 1.5 * rounding
    assert (together - alone).norm() < 2 * rounding


class TestFailures:
    @pytest.mark.parametrize("shard", ["no shard", ("no", "shard")])
    def test_a_client_whose_images_cannot_be_drawn_fails_alone(self, shard, stacked):
        tasks = cohort()
        tasks[2] = task_of(2, rounds_before=2, shard=shard)
        results = carry_out_together(tasks, CPU)

        assert isinstance(results[2], AttributeError)
        for position in (0, 1, 3):
            expected = carry_out(cohort()[position])
            torch.testing.assert_close(results[position], expected, rtol=1e-5, atol=1e-5)

    def test_what_fails_together_is_done_one_by_one_as_if_never_tried(self, monkeypatch, caplog):
        def out_of_memory(*arguments):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(cohort_training.StackedCritics, "sample_gradient", out_of_memory)
        results = carry_out_together(cohort(), CPU)

        assert "one by one" in caplog.text
        assert all(map(torch.equal, results, map(carry_out, cohort())))

    @pytest.mark.parametrize(
        ("others", "said"),
        [
            ([task_of(1, classes=7)], "must be alike"),
            ([task_of(1, critic_learning_rate=0.5)], "settings must be the same"),
            ([task_of(1, size=5)], "stack expects each tensor to be equal size"),
        ],
    )
    def test_tasks_that_cannot_be_stacked_are_done_one_by_one(self, others, said, caplog):
        results = carry_out_together([task_of(0), *others], CPU)

        assert said in caplog.text
        assert torch.equal(results[0], carry_out(task_of(0)))

    def test_a_critic_whose_gradient_is_not_written_out_is_trained_alone(self, caplog):
        def normed():
            task = task_of(0)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                parametrizations.spectral_norm(task.critic.features[1])
            optimizer = critic_optimizer(task.critic, task.config, AdamConfig())
            return replace(task, critic=task.critic.eval(), optimizer=optimizer)

        results = carry_out_together([normed(), normed()], CPU)

        assert "must have a gradient that is written out" in caplog.text
        assert torch.equal(results[0], carry_out(normed()))


def test_images_and_randomness_of_a_client_are_left_as_they_were(stacked):
    tasks = cohort()
    before = [(t.shard.images.copy(), t.randomness.bit_generator.state) for t in tasks]
    carry_out_together(tasks, CPU)
    for task, (images, state) in zip(tasks, before, strict=True):
        assert np.array_equal(task.shard.images, images)
        assert task.randomness.bit_generator.state == state


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@of_both_critics
def test_on_a_gpu_they_agree_and_stay_where_they_were(kind, stacked):
    tasks = cohort(kind)
    results = carry_out_together(tasks, torch.device("cuda"))
    for result, task, other in zip(results, tasks, cohort(kind), strict=True):
        torch.testing.assert_close(result, carry_out(other), rtol=1e-4, atol=1e-4)
        assert {p.device for p in task.critic.parameters()} == {CPU}
