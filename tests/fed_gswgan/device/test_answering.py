from functools import partial

import numpy as np
import pytest
import torch

from fed_gswgan.device.answering import answer_alone, answer_together
from fed_gswgan.privacy.durable_file import held
from fed_gswgan.privacy.refusals import LedgerUnavailable, Refusal, RequestExceedsPolicy
from fed_gswgan.training.cohort_training import carry_out_together
from fed_gswgan.training.critic_task import CriticTask, carry_out_each

at_once = partial(carry_out_together, device=torch.device("cpu"))
of_both_ways = pytest.mark.parametrize("work", [carry_out_each, at_once])


class Work:
    """Does the work of the tasks, and counts them each time."""

    def __init__(self, work=at_once):
        self.work, self.counts = work, []

    def __call__(self, tasks):
        self.counts.append(len(tasks))
        return self.work(tasks)


def values(reply):
    return reply.gradient.values_BCHW


def unreadable():
    raise OSError("the disk is gone")


@pytest.fixture
def guards(make_guard, make_shard, tmp_path):
    """Build guards whose noise hides nothing, in folders of their own, over different shards."""

    def make(name, *open_shards, **settings):
        found = []
        for number, open_shard in enumerate(open_shards):
            shard = open_shard or partial(make_shard, seed=number)
            folder = tmp_path / f"{name}-{number}"
            found.append(make_guard(folder, shard, noise_stddev=2e-9, **settings).guard)
        return found

    return make


@pytest.fixture
def request_of(make_request):
    return partial(make_request, noise_stddev=2e-9)


@of_both_ways
@pytest.mark.parametrize("settings", [{}, {"critic_state": "snapshot"}, {"critic": "conv"}])
def test_answers_given_together_are_those_given_alone(guards, request_of, work, settings):
    together, alone = (guards(name, None, None, None, **settings) for name in ("a", "b"))
    together[0].answer(request_of(1)), alone[0].answer(request_of(1))  # one has taken part before
    for server_round in (2, 3):
        request = request_of(server_round, server_round - 1)
        replies = answer_together([guard.answering(request) for guard in together], work)
        for reply, guard in zip(replies, alone, strict=True):
            assert reply.server_round == server_round
            assert values(reply) == pytest.approx(values(guard.answer(request)), abs=1e-5)


@of_both_ways
def test_a_client_whose_training_fails_is_answered_with_its_noise_alone(
    guards, request_of, charges, tmp_path, work
):
    shards = [None, unreadable, lambda: ("no", "shard"), None]
    work = Work(work)
    replies = answer_together([g.answering(request_of(1)) for g in guards("a", *shards)], work)
    expected = [guard.answer(request_of(1)) for guard in guards("b", *shards)]

    assert work.counts == [3]  # whose shard cannot be read has no task
    for position in (0, 3):
        assert values(replies[position]) == pytest.approx(values(expected[position]), abs=1e-5)
        assert np.abs(values(replies[position])).max() > 1e-3
    for position in (1, 2):
        assert values(replies[position]).tobytes() == values(expected[position]).tobytes()
        assert np.abs(values(replies[position])).max() < 1e-7
    assert [charges(tmp_path / f"a-{number}") for number in range(4)] == [1] * 4
    logs = [(tmp_path / f"a-{number}" / "failures.log").exists() for number in range(4)]
    assert logs == [False, True, True, False]


def test_what_fails_after_its_task_goes_on_from_the_critic_of_before(guards, request_of):
    def fails(tasks):
        return [RuntimeError("about the data") for _ in tasks]

    (failing,), (other,) = guards("a", None), guards("b", None)
    first = values(failing.answer(request_of(1)))
    (failed,) = answer_together([failing.answering(request_of(2, 1))], fails)
    assert np.abs(values(failed)).max() < 1e-7
    assert (values(other.answer(request_of(1))) == first).all()
    third = request_of(3, 1)
    assert (values(failing.answer(third)) == values(other.answer(third))).all()


def test_a_refusal_is_the_refused_clients_alone(guards, request_of, charges, tmp_path):
    asked, work = guards("a", None, None, None), Work()
    (tmp_path / "a-1" / "ledger.jsonl").unlink()
    requests = [request_of(1), request_of(1), request_of(1, clipping_bound=2.0)]
    answerings = [guard.answering(r) for guard, r in zip(asked, requests, strict=True)]
    answers = answer_together(answerings, work)

    assert work.counts == [1]
    assert [type(answer) for answer in answers[1:]] == [LedgerUnavailable, RequestExceedsPolicy]
    assert values(answers[0]).shape == (4, 1, 28, 28)
    assert (charges(tmp_path / "a-0"), charges(tmp_path / "a-2")) == (1, 0)


def test_alone_a_refusal_is_raised(guards, request_of):
    (guard,) = guards("a", None)
    with pytest.raises(Refusal, match="clipping-bound"):
        answer_alone(guard.answering(request_of(1, clipping_bound=2.0)))


def test_what_was_answered_before_is_answered_again_without_work_or_charge(
    guards, request_of, charges, tmp_path
):
    asked, work = guards("a", None, None), Work()
    first = [values(guard.answer(request_of(1))).tobytes() for guard in asked]
    again = answer_together([guard.answering(request_of(1)) for guard in asked], work)

    assert work.counts == [0]
    assert [values(reply).tobytes() for reply in again] == first
    assert [charges(tmp_path / f"a-{number}") for number in range(2)] == [1, 1]


def test_every_reservation_is_on_disk_before_any_work(guards, request_of, charges, tmp_path):
    seen = []

    def look(tasks):
        assert all(isinstance(task, CriticTask) for task in tasks)
        seen.extend(charges(tmp_path / f"a-{number}") for number in range(3))
        return carry_out_each(tasks)

    answer_together([g.answering(request_of(1)) for g in guards("a", None, None, None)], look)
    assert seen == [1, 1, 1]


@of_both_ways
def test_whoever_is_interrupted_stays_charged_and_lets_go_of_everybody(
    guards, request_of, charges, tmp_path, work, monkeypatch
):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    asked = guards("a", None, None)
    with monkeypatch.context() as patch:
        patch.setattr("fed_gswgan.training.critic_training.draw_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            answer_together([guard.answering(request_of(1)) for guard in asked], work)
    for number in range(2):
        assert charges(tmp_path / f"a-{number}") == 1
        with held(tmp_path / f"a-{number}" / "answering.lock", 0.0):
            pass
