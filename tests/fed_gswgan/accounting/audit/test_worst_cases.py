import math

import numpy as np
import pytest

from fed_gswgan.accounting.audit_cases import worst_cases
from fed_gswgan.privacy.clipping import clip
from fed_gswgan.privacy.events import NeighboringRelation

CASES = worst_cases()


def clipped_distance(case):
    """Distance of the two worlds after clipping, in units of the bound."""

    def clipped(messages):
        event = case.event
        return np.array([clip(m, event.clipping, event.clipping_bound) for m in messages])

    difference = clipped(case.present) - clipped(case.changed)
    return np.linalg.norm(difference) / case.event.clipping_bound


def test_titles_are_unique():
    assert len({case.title for case in CASES}) == len(CASES)


def test_every_setting_occurs():
    settings = {(case.relation, case.event.clipping, case.event.samples) for case in CASES}
    assert len(settings) == 2 * 2 * 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_worlds_are_neighbours_and_no_farther_apart_than_the_claim(case):
    for message in (*case.present, *case.changed):
        assert message.shape == (case.event.samples, 1, 4, 4)
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
