"""Replies are checked, counted and summed; the mean is what each trust model makes of the sum."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_gswgan.algorithms.base import Mean
from fed_gswgan.privacy.mechanism import Event, grid_step, noise_deviation
from fed_gswgan.privacy.noise import SeededNoise
from fed_gswgan.privacy.refusals import BudgetExhausted, ClientFailed
from fed_gswgan.wire.message_types import RECORD, REPLIES, TRAIN
from fed_gswgan.wire.messages import Request, encode_refusal, encode_release
from server.collect import (
    Collected,
    exchange,
    looks_like_noise_alone,
    mean_of,
    modulus_bits_for,
)
from simulations.in_process import InProcessGrid

pytestmark = pytest.mark.usefixtures("task_identity")


def request_of(trust="local", honest=1, uplink_bits=32, modulus_bits=0, **event):
    fields = {"rows": 2, "numbers": 3, "extra": 1, "clipping_bound": 1.0, "noise_stddev": 2.0}
    return Request(
        experiment_id="e", server_round=7, algorithm="a", uplink_bits=uplink_bits,
        modulus_bits=modulus_bits, event=Event(**fields | event, trust=trust, honest=honest),
    )  # fmt: skip


def summed(request, cohort):
    """Return the request with the modulus that a cohort's sum needs."""
    return replace(request, modulus_bits=modulus_bits_for(request, cohort))


def reply(node, content, group="7/0"):
    """Return a node's reply, of a list of clients' blobs, of anything else, or an error."""
    question = Message(RecordDict(), node, TRAIN, group_id=group)
    if isinstance(content, Error):
        return Message(content, reply_to=question)
    if isinstance(content, list):
        content = {RECORD: ConfigRecord({REPLIES: content})}
    return Message(RecordDict(content), reply_to=question)


def asking(request, asked):
    """Return a round in which these clients were asked, by node and group."""
    collected = Collected(request, [client for clients in asked.values() for client in clients])
    collected.ask(asked, dict.fromkeys(collected.cohort, b"request"))
    return collected


def one_each(count, group="7/0"):
    return {(100 + i, group): [f"client-{i}"] for i in range(count)}


def collected_of(request, releases):
    """Return releases of one client each, in grid steps, after their way over the wire."""
    collected = asking(request, one_each(len(releases)))
    blobs = [encode_release(np.asarray(steps), request) for steps in releases]
    collected.add(reply(100 + i, [blob]) for i, blob in enumerate(blobs))
    assert (collected.received, collected.missing) == (len(releases), 0)
    return collected


def no_noise():
    raise AssertionError("a server adds no noise under this trust")


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2, 1])
def test_the_sum_is_the_same_in_whatever_order_replies_arrive(bits):
    request = request_of(uplink_bits=bits)
    rng = np.random.default_rng(0)
    releases = [(1000 * rng.standard_normal(7)).astype(np.int64) for _ in range(20)]
    replies = [reply(100 + i, [encode_release(steps, request)]) for i, steps in enumerate(releases)]
    totals = []
    for order in (range(20), reversed(range(20)), rng.permutation(20)):
        collected = asking(request, one_each(20))
        for i in order:
            collected.add([replies[i]])
        totals.append(collected.total)
    assert np.array_equal(totals[0], totals[1])
    assert np.array_equal(totals[0], totals[2])
    if bits == 32:
        assert np.array_equal(totals[0], sum(releases))


def test_memory_does_not_grow_with_the_cohort():
    request, count = request_of(numbers=50_000), 60
    collected = asking(request, one_each(count))
    blob = encode_release(np.arange(100_001), request)
    tracemalloc.start()
    collected.add(reply(100 + i, [blob]) for i in range(count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(collected.total, count * np.arange(100_001))
    assert peak < 6 * collected.total.nbytes < count * len(blob)


def test_whatever_a_client_sends_is_counted_and_stops_nothing(caplog):
    request = request_of()
    good = encode_release(np.arange(7), request)
    refusal = encode_refusal(BudgetExhausted("spent 9.1", "max-epsilon=9"))
    asked = {(node, "7/0"): [f"{node}-a", f"{node}-b"] for node in range(1, 13)}
    asked[1, "7/2"] = ["1-c"]
    collected = asking(request, asked)
    collected.add(
        [
            reply(1, [good, good]),  # 2 received
            reply(1, [good, good]),  # answered already
            reply(1, [good], group="7/2"),  # 1 received: the node's second message
            reply(2, [good, good[:-1]]),  # 1 received, 1 malformed
            reply(3, [refusal, good + b"\n"]),  # 1 failed, 1 malformed
            reply(4, [good]),  # 2 malformed: not a reply for each client
            reply(5, Error(1003, "disk\nfull")),  # 2 failed
            reply(6, {RECORD: ConfigRecord({REPLIES: "text"})}),  # 2 malformed
            reply(7, {RECORD: ConfigRecord({"other": [good, good]})}),  # 2 malformed
            reply(8, {"other": ConfigRecord({REPLIES: [good, good]})}),  # 2 malformed
            reply(9, [1, 2]),  # 2 malformed
            reply(10, [b"", b"\x01{}"]),  # 2 malformed
            reply(11, [good, good], group="6/0"),  # late, of another round
            reply(99, [good, good]),  # of a node that was not asked
            reply(99, Error(1003, "unknown")),
        ]
    )
    assert (collected.received, collected.failed, collected.malformed) == (4, 3, 14)
    assert collected.missing == 4, "of nodes 11 and 12"
    assert np.array_equal(collected.total, 4 * np.arange(7))
    assert collected.refusals == {"BUDGET_EXHAUSTED": 1}
    assert collected.uplink["1-a"] == len(good) == 29
    assert collected.uplink["3-a"] == len(refusal)
    assert collected.downlink == dict.fromkeys(collected.cohort, len(b"request"))
    for words in ("round 7: 3-a: BUDGET_EXHAUSTED max-epsilon=9", "5-a: disk?full", "was not asked",
                  "1-a: answered already"):  # fmt: skip
        assert words in caplog.text
    assert "spent 9.1" not in caplog.text
    collected.add([reply(12, [encode_refusal(ClientFailed("oops"))] * 2)])
    assert (collected.failed, collected.missing) == (5, 2)


def test_under_local_trust_the_divisor_is_the_survivors():
    request = request_of()
    step = grid_step(request.event)
    mean = mean_of(collected_of(request, [[3 * i] * 6 + [9] for i in range(4)]), 10, no_noise)
    assert np.array_equal(mean.update_RN, np.full((2, 3), 4.5 * step))
    assert np.array_equal(mean.extra_E, [9 * step])
    assert (mean.clients, mean.noise_stddev) == (4, 2 / math.sqrt(4))
    assert mean_of(asking(request, one_each(4)), 10, no_noise) is None


def test_under_central_trust_it_is_the_expected_cohort_and_the_server_adds_noise():
    request = request_of("central", noise_stddev=0.5, clipping_bound=4.0)
    step = grid_step(request.event)
    assert step <= 4 * 2.0**-20
    collected = collected_of(request, [[1000] * 7, [2000] * 7])
    mean = mean_of(collected, 8, lambda: SeededNoise(np.random.default_rng(3)))
    noise = 0.5 * 4 * np.random.default_rng(3).standard_normal(7)
    expected = (3000 * step + noise) / 8
    np.testing.assert_allclose(mean.update_RN.ravel(), expected[:6], atol=2.0**-10)
    np.testing.assert_allclose(mean.extra_E, expected[6:], atol=2.0**-10)
    assert (mean.clients, mean.noise_stddev) == (8, 2 / 8)


def test_under_central_trust_an_update_beyond_the_bound_is_malformed():
    """A client that does not clip would outweigh the others: no noise hides it."""
    request = request_of("central")
    steps = np.array([round(1 / grid_step(request.event)), 0, 0, 0, 0, 0, 0])
    collected = asking(request, one_each(2))
    collected.add(
        reply(100 + i, [encode_release(steps + i, request)]) for i in range(2)
    )  # the second is one step longer
    assert (collected.received, collected.malformed) == (1, 1)


def test_under_secure_aggregation_fewer_than_the_honest_give_no_mean():
    request = summed(request_of("secure-aggregation", honest=3), 5)
    step = grid_step(request.event)
    releases = [[-5] * 7, [2] * 7, [-6] * 7]
    assert mean_of(collected_of(request, releases[:2]), 5, no_noise) is None
    mean = mean_of(collected_of(request, releases), 5, no_noise)
    assert np.array_equal(mean.update_RN, np.full((2, 3), -3.0 * step))
    assert (mean.clients, mean.noise_stddev) == (3, 2 / math.sqrt(3))


@settings(max_examples=40, deadline=None)
@given(
    cohort=st.integers(2, 300),
    stddev=st.floats(0.05, 50),
    bound=st.sampled_from([1e-3, 1.0, 700.0]),
    seed=st.integers(0, 2**32),
)
def test_the_modulus_never_wraps(task_identity_now, cohort, stddev, bound, seed):
    """Even where every client's largest number is the same one, with the same sign."""
    event = {"noise_stddev": stddev, "clipping_bound": bound, "bounded": "message"}
    request = summed(request_of("secure-aggregation", 2, **event), cohort)
    step, deviation = grid_step(request.event), noise_deviation(request.event)
    noise, sign = SeededNoise(np.random.default_rng(seed)), (-1) ** seed
    whole = np.zeros(7, np.int64)
    collected = asking(request, {(1, "7/0"): [f"client-{i}" for i in range(cohort)]})
    blobs = []
    for _ in range(cohort):
        steps = noise.draw(np.array([sign * bound, 0, 0, 0, 0, 0, 0]), deviation, step)
        whole += steps
        blobs.append(encode_release(steps, request))
    collected.add([reply(1, blobs)])
    mean = mean_of(collected, cohort, no_noise)
    assert np.array_equal(np.append(mean.update_RN, mean.extra_E), whole * step / cohort)
    assert request.modulus_bits <= 31


@pytest.fixture(scope="module")
def task_identity_now():
    """Give this process its identity before hypothesis calls the test again and again."""
    InProcessGrid(0, {})


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2, 1])
def test_the_mean_of_few_bits_is_unbiased_and_its_noise_is_as_stated(bits):
    """Of a signal that is small beside the noise, in 200,000 coordinates."""
    request = request_of(uplink_bits=bits, rows=1, numbers=200_000, extra=0, noise_stddev=1.5)
    step, deviation = grid_step(request.event), noise_deviation(request.event)
    signal = 0.1 * deviation
    noise = SeededNoise(np.random.default_rng(bits))
    releases = [noise.draw(np.full(200_000, signal), deviation, step) for _ in range(2)]
    mean = mean_of(collected_of(request, releases), 2, no_noise)
    standard_error = mean.noise_stddev / math.sqrt(200_000)
    assert mean.update_RN.mean() == pytest.approx(signal, abs=5 * standard_error)
    assert mean.update_RN.std() == pytest.approx(mean.noise_stddev, rel=0.01)
    assert mean.noise_stddev >= deviation / math.sqrt(2) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("signal", "noise_stddev", "told"),
    [(0.0, 0.01, True), (0.5, 0.01, False), (0.0, 5.0, False)],
    ids=["noise alone", "a signal", "noise that would hide a signal"],
)
def test_a_mean_looks_like_noise_only_where_a_signal_would_show(signal, noise_stddev, told):
    event = Event(rows=1, numbers=400, bounded="message", clipping_bound=1.0, noise_stddev=1.0)
    values = noise_stddev * np.random.default_rng(0).standard_normal((1, 400))
    values[0, 0] += signal
    mean = Mean(values, np.zeros(0), 10, noise_stddev)
    assert looks_like_noise_alone(event, mean) == told


class LateGrid(InProcessGrid):
    """Grid whose replies to a round come at so many looks, those to none at every look."""

    def __init__(self, looks):
        super().__init__(0, {})
        self.looks, self.pulled = looks, 0

    def push_messages(self, messages):
        messages = list(messages)
        ids = [f"m{i}" for i in range(len(messages))]
        for message, name in zip(messages, ids, strict=True):
            message.metadata.__dict__["_message_id"] = name
        self.waiting = [Message(RecordDict(), reply_to=message) for message in messages]
        return ["" if name == "m3" else name for name in ids]  # could not be pushed

    def pull_messages(self, message_ids):
        assert message_ids, "nothing is pulled where nothing was asked"
        self.pulled += 1
        found = [m for m in self.waiting if self.looks.get(m.metadata.reply_to_message_id, 9e9)
                 <= self.pulled]  # fmt: skip
        return found


def questions(count):
    return [Message(RecordDict(), 100 + i, TRAIN) for i in range(count)]


def names(replies):
    return [reply.metadata.reply_to_message_id for reply in replies]


def test_replies_are_handed_on_as_they_arrive_each_once():
    grid = LateGrid({"m0": 3, "m1": 1, "m2": 1})
    arriving = exchange(grid, questions(4), timeout_seconds=60)
    assert names([next(arriving), next(arriving)]) == ["m1", "m2"]
    assert grid.pulled == 1
    assert names(arriving) == ["m0"]
    assert grid.pulled == 3


def test_a_round_ends_without_replies_after_the_time_out_or_when_interrupted():
    grid = LateGrid({"m0": 1})
    assert names(exchange(grid, questions(2), timeout_seconds=0.05)) == ["m0"]
    grid = LateGrid({"m0": 2})
    stop = iter([False, False, True])
    assert names(exchange(grid, questions(2), 60, lambda: next(stop))) == ["m0"]
    assert names(exchange(grid, [], timeout_seconds=60)) == []
