import math
from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.accounting.audit_cases import (
    FaultyRelease,
    projection,
    release,
    unreachable_by_single_precision,
    worst_cases,
)
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, bound

CASES = worst_cases()


def clipped_message(message, event):
    sized = replace(event, numbers=message[0].size)
    return bound(message.reshape(len(message), -1), np.empty(0), sized).reshape(message.shape)


def clipped_distance(case):
    """Distance of the two worlds after clipping, in units of the bound."""

    def clipped(messages):
        event = case.event
        return np.array([clipped_message(m, event) for m in messages])

    difference = clipped(case.present) - clipped(case.changed)
    return np.linalg.norm(difference) / case.event.clipping_bound


def test_titles_are_unique():
    assert len({case.title for case in CASES}) == len(CASES)


def test_every_setting_occurs():
    settings = {(case.relation, case.event.bounded, case.event.rows) for case in CASES}
    assert len(settings) == 2 * 2 * 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_worlds_are_neighbours_and_no_farther_apart_than_the_claim(case):
    for message in (*case.present, *case.changed):
        assert message.shape == (case.event.rows, 1, 4, 4)
        assert message.dtype == np.float32
    sensitivity = case.event.sensitivity(case.relation)
    assert clipped_distance(case) <= sensitivity * math.sqrt(len(case.present)) * (1 + 1e-6)
    if case.relation == NeighboringRelation.ZERO_OUT:
        assert not np.any(case.changed)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_claim_is_weak_enough_to_be_refuted(case):
    assert case.event.mu(case.relation) == pytest.approx(1 / 1.07)


@pytest.mark.parametrize(
    "name",
    [
        "all rows at the bound",
        "all rows 10^30 times the bound",
        "pixels of alternating signs",
        "two messages of opposite signs",
        "huge rows that cancel out",
    ],
)
def test_worst_cases_reach_the_sensitivity(name):
    found = [case for case in CASES if case.name == name]
    assert found
    for case in found:
        reached = case.event.sensitivity(case.relation) * math.sqrt(len(case.present))
        assert clipped_distance(case) == pytest.approx(reached, rel=1e-6)


def event(clipping="sample", samples=2, noise_stddev=2.14):
    return Event(
        rows=samples, numbers=1, bounded=clipping, clipping_bound=1.0, noise_stddev=noise_stddev
    )


def rows(*values):
    return np.array(values, np.float32).reshape(len(values), 1, 1, 2)


def test_score_lies_along_the_difference_of_what_is_clipped():
    # Clipped: (0.6, 0.8), (0, 0) against (0, 0), (0, 0).
    score = projection([rows([3, 4], [np.nan, 1])], [rows([0, 0], [0, 0])], event())
    assert score([rows([1, 0], [9, 9])]) == pytest.approx(0.6)
    assert score([rows([0, 1], [9, 9])]) == pytest.approx(0.8)


def test_whole_reply_is_clipped_as_one_under_message_clipping():
    # (3, 0), (0, 4) is 5 long: (0.6, 0), (0, 0.8) is left.
    score = projection([rows([3, 0], [0, 4])], [rows([0, 0], [0, 0])], event("message"))
    assert score([rows([1, 0], [0, 0])]) == pytest.approx(0.6)
    assert score([rows([0, 0], [0, 1])]) == pytest.approx(0.8)


def test_messages_are_scored_together():
    score = projection(
        [rows([1, 0]), rows([-1, 0])], [rows([-1, 0]), rows([1, 0])], event(samples=1)
    )
    same_noise = rows([7, 7])
    assert score([same_noise, same_noise]) == pytest.approx(0)
    assert score([rows([1, 0]), rows([0, 0])]) == pytest.approx(0.5**0.5)


def test_a_value_that_single_precision_noise_skips_is_counted():
    normals = np.random.Generator(np.random.Philox(key=5)).standard_normal(20_000, np.float32)
    noise = (np.float32(2.14) * normals).reshape(10_000, 1, 1, 2)
    score = unreachable_by_single_precision(event(samples=10_000))
    assert score([noise]) == 0
    # 6 to 7 in a hundred numbers lie in a gap.
    assert 1000 < score([noise + np.float32(0.3)]) < 1600


ZEROS = np.zeros((2, 1, 2, 2), np.float32)


def raising(messages, event):
    raise KeyError("a digit")


@pytest.mark.parametrize(
    ("sanitize_messages", "said"),
    [
        (raising, "KeyError: 'a digit'"),
        (lambda messages, event: messages[:1], "1 answers to 2 messages"),
        (lambda messages, event: [m.astype(np.float64) for m in messages], "float64"),
        (lambda messages, event: [m.tolist() for m in messages], "list"),
        (lambda messages, event: [m[:1] for m in messages], r"shape \(1, 1, 2, 2\)"),
        (lambda messages, event: [m + np.float32(np.nan) for m in messages], "not finite"),
        (lambda messages, event: [m - np.float32(np.inf) for m in messages], "not finite"),
    ],
)
def test_an_answer_of_a_form_of_its_own_is_a_fault(sanitize_messages, said):
    with pytest.raises(FaultyRelease, match=said):
        release(sanitize_messages, [ZEROS, ZEROS], event())


def test_a_sanitizer_that_writes_on_its_input_does_not_spoil_the_next_release():
    def add_one(messages, event):
        for message in messages:
            message += 1
        return messages

    for _ in range(2):
        (released,) = release(add_one, [ZEROS], event())
        assert (released == 1).all()
