import math
from dataclasses import replace

import pytest

from fed_gswgan.accounting.calibrate import affordable_participations, remedies
from fed_gswgan.privacy.events import (
    NeighboringRelation,
    SanitizedGradientEvent,
    compose,
    local_epsilon,
)
from fed_gswgan.privacy.gaussian import gaussian_epsilon

REPLACE, ZERO = NeighboringRelation.REPLACE_ONE, NeighboringRelation.ZERO_OUT
DELTA = 1e-5
# mu = 2 x sqrt(4) / 8 = 0.5 under replace-one, 0.25 when the whole message is clipped.
EVENT = SanitizedGradientEvent(samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
TARGET_MU = 1.01
EPSILON = gaussian_epsilon(TARGET_MU, DELTA)


def epsilon_of(event, participations, honest=1, relation=REPLACE):
    return local_epsilon(event, participations, relation, DELTA, honest)


def test_remedies_by_hand():
    found = remedies(EVENT, 3.0, REPLACE, DELTA, EPSILON)  # 36 replies: mu = 0.5 x 6 = 3
    assert found.epsilon == EPSILON
    assert found.participations == 4  # (1.01 / 0.5)^2 = 4.08
    assert found.participations_message_clipping == 16  # (1.01 / 0.25)^2 = 16.3
    assert found.noise_stddev == pytest.approx(8 * 3 / 1.01)
    assert found.honest == 9  # (3 / 1.01)^2 = 8.8


@pytest.mark.parametrize("relation", [REPLACE, ZERO])
@pytest.mark.parametrize("epsilon", [0.7, 1.0, 10.0, 100.0])
def test_every_remedy_reaches_the_target_and_a_little_less_of_it_does_not(relation, epsilon):
    found = remedies(EVENT, EVENT.mu(relation) * math.sqrt(500), relation, DELTA, epsilon)
    message = replace(EVENT, clipping="message")
    quieter = replace(EVENT, noise_stddev=found.noise_stddev * 0.999)
    louder = replace(EVENT, noise_stddev=found.noise_stddev * (1 + 1e-9))
    by_message = found.participations_message_clipping
    enough = [
        epsilon_of(EVENT, found.participations, 1, relation),
        epsilon_of(message, by_message, 1, relation),
        epsilon_of(louder, 500, 1, relation),
        epsilon_of(EVENT, 500, found.honest, relation),
    ]
    too_little = [
        epsilon_of(EVENT, found.participations + 1, 1, relation),
        epsilon_of(message, by_message + 1, 1, relation),
        epsilon_of(quieter, 500, 1, relation),
    ]
    if found.honest > 1:
        too_little.append(epsilon_of(EVENT, 500, found.honest - 1, relation))
    assert max(enough) <= epsilon < min(too_little)


def test_what_was_spent_may_be_of_replies_of_several_sizes():
    # 16 replies of four rows and 4 of one: mu^2 = 16 x 0.25 + 4 x 0.0625 = 4.25.
    small = replace(EVENT, samples=1)
    found = remedies(EVENT, compose({EVENT: 16, small: 4}, REPLACE), REPLACE, DELTA, EPSILON)
    factor = found.noise_stddev / 8
    louder = {replace(e, noise_stddev=8 * factor): n for e, n in ((EVENT, 16), (small, 4))}
    assert factor == pytest.approx(math.sqrt(4.25) / 1.01)
    assert compose(louder, REPLACE) == pytest.approx(1.01)
    assert found.honest == 5  # 4.25 / 1.0201 = 4.17


def test_where_one_reply_costs_more_no_participation_is_affordable():
    found = remedies(EVENT, 1.5, REPLACE, DELTA, gaussian_epsilon(0.4, DELTA))
    assert found.participations == 0
    assert found.participations_message_clipping == 2  # (0.4 / 0.25)^2 = 2.56


def test_a_target_that_is_met_needs_one_honest_survivor_and_less_noise():
    found = remedies(EVENT, 0.5, REPLACE, DELTA, EPSILON)
    assert found.honest == 1
    assert found.noise_stddev < EVENT.noise_stddev


def test_a_run_without_participations_needs_no_remedy():
    found = remedies(EVENT, 0.0, REPLACE, DELTA, EPSILON)
    assert (found.participations, found.honest, found.noise_stddev) == (4, 1, 0.0)


def test_affordable_participations_by_hand():
    assert affordable_participations(EVENT, REPLACE, 1.0) == 4
    assert affordable_participations(EVENT, ZERO, 1.0) == 16
    assert affordable_participations(EVENT, REPLACE, 0.49) == 0
