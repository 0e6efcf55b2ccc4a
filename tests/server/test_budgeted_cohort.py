import pytest

from fed_gswgan.config import CohortConfig
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.privacy_config import BudgetConfig
from fed_gswgan.seeding import SeedStream
from server.budgeted_cohort import BudgetedCohort
from server.cohort_sampling import select_cohort

EVENT = SanitizedGradientEvent(samples=8, clipping="sample", clipping_bound=1.0, noise_stddev=2.14)
COHORT = CohortConfig(cohort_size=3)
SEEDS = SeedStream(0)


@pytest.fixture
def ledgers(tmp_path):
    """The count of a server under which everybody answers once."""
    UserLedgers.create(tmp_path / "asked.jsonl")
    return UserLedgers(tmp_path / "asked.jsonl", BudgetConfig(max_participations=1))


def cohorts_of(population, ledgers):
    return BudgetedCohort(population, COHORT, SEEDS, ledgers, EVENT)


def test_who_has_no_budget_is_left_out_and_nobody_elses_draw_shifts(ledgers):
    population = [f"client-{number}" for number in range(9)]
    cohorts = cohorts_of(population, ledgers)
    drawn = {n: select_cohort(population, n, COHORT, SEEDS) for n in range(1, 20)}
    spent = drawn[1][0]
    ledgers.record(1, [spent], EVENT)
    for server_round, whole in drawn.items():
        expected = [client_id for client_id in whole if client_id != spent]
        assert cohorts.select(server_round, frozenset()) == expected


def test_who_is_absent_is_replaced_by_others(ledgers):
    cohorts = cohorts_of(["a", "b", "c", "d"], ledgers)
    assert cohorts.select(1, {"b"}) == ["a", "c", "d"]


def test_everybody_is_exhausted_once_the_last_one_is(ledgers):
    cohorts = cohorts_of(["a", "b", "c"], ledgers)
    for server_round, client_id in enumerate("bca", start=1):
        assert not cohorts.everybody_is_exhausted()
        ledgers.record(server_round, [client_id], EVENT)
    assert cohorts.everybody_is_exhausted()


@pytest.mark.parametrize("newcomer", ["a", "z"])
def test_whoever_joins_can_be_asked_wherever_the_id_stands(ledgers, newcomer):
    population = ["m", "n"]
    cohorts = cohorts_of(population, ledgers)
    ledgers.record(1, population, EVENT)
    assert cohorts.everybody_is_exhausted()

    population[:] = sorted([*population, newcomer])

    assert not cohorts.everybody_is_exhausted()
    assert cohorts.select(2, frozenset()) == [newcomer]
    ledgers.record(2, [newcomer], EVENT)
    assert cohorts.everybody_is_exhausted()
