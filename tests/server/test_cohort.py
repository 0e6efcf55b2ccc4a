"""Cohorts are drawn fairly, from seed and round alone; the server counts before it asks."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest

from fed_gswgan.config import CohortSettings
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Budget
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.seeding import SeedStream
from server.cohort import ServerLedger, select_cohort

POPULATION = [f"client-{n:02d}" for n in range(20)]
SEEDS = SeedStream(7)


def drawn(server_round, size=5, method="fixed-size", absent=(), population=POPULATION, seeds=SEEDS):
    config = CohortSettings(cohort_size=size, sampling_method=method)
    return select_cohort(population, server_round, config, seeds, frozenset(absent))


def cohorts(count=2000, **changed):
    return [drawn(server_round, **changed) for server_round in range(1, count + 1)]


@pytest.mark.parametrize("size", [1, 5, 20, 30])
def test_a_fixed_size_cohort_has_its_size_and_nobody_twice(size):
    for cohort in cohorts(50, size=size):
        assert len(cohort) == min(size, 20)
        assert cohort == sorted(set(cohort))


@pytest.mark.parametrize("method", ["fixed-size", "poisson"])
def test_every_client_and_every_pair_is_asked_about_equally_often(method):
    """Of 2,000 draws with probability 1/4: 500 each, a standard deviation of 19.4."""
    found = cohorts(method=method)
    asked = Counter(client for cohort in found for client in cohort)
    assert all(abs(asked[client] - 500) < 5 * 19.4 for client in POPULATION)
    pairs = sum({"client-03", "client-04"} <= set(cohort) for cohort in found)
    probability = 5 * 4 / (20 * 19) if method == "fixed-size" else 1 / 16
    deviation = math.sqrt(2000 * probability * (1 - probability))
    assert abs(pairs - 2000 * probability) < 5 * deviation


def test_a_poisson_cohort_s_size_is_binomial():
    """Of 20 draws at 1/4: mean 5, variance 3.75; it may be empty."""
    sizes = [len(cohort) for cohort in cohorts(method="poisson")]
    mean = sum(sizes) / 2000
    assert mean == pytest.approx(5, abs=0.2)
    assert sum((size - mean) ** 2 for size in sizes) / 2000 == pytest.approx(3.75, abs=0.6)
    assert [] in cohorts(50, size=1, method="poisson")


@pytest.mark.parametrize("method", ["fixed-size", "poisson"])
def test_seed_and_round_decide_a_cohort(method):
    assert cohorts(30, method=method) == cohorts(30, method=method)
    assert cohorts(30, method=method) != cohorts(30, method=method, seeds=SeedStream(8))
    assert len({tuple(cohort) for cohort in cohorts(30, method=method)}) > 20


@pytest.mark.parametrize("method", ["fixed-size", "poisson"])
def test_only_the_cohort_is_looked_up_in_a_large_population(method):
    looked_up = []

    class Population:
        def __len__(self):
            return 100_000

        def __getitem__(self, position):
            looked_up.append(position)
            return f"client-{position:05d}"

    cohort = drawn(3, size=10, method=method, population=Population())
    assert len(looked_up) == len(cohort) < 40


def test_the_absent_are_replaced_and_nobody_else_is():
    for server_round in range(1, 101):
        whole = drawn(server_round)
        absent = {whole[0], whole[3], "client-07"}
        cohort = drawn(server_round, absent=absent)
        assert len(cohort) == 5
        assert cohort == sorted(set(cohort) - absent)
        assert set(whole) - absent <= set(cohort)
    late = [drawn(n, size=2, absent=POPULATION[:15]) for n in range(1, 41)]
    assert set().union(*late) == set(POPULATION[15:]), "others in turn, not always the first"
    assert drawn(1, absent=POPULATION[2:]) == POPULATION[:2]
    assert drawn(1, absent=POPULATION) == []


def test_in_a_poisson_cohort_every_draw_is_its_own():
    for server_round in range(1, 50):
        whole = drawn(server_round, method="poisson")
        cohort = drawn(server_round, method="poisson", absent=POPULATION[::3])
        assert cohort == [client for client in whole if client not in POPULATION[::3]]


EVENT = Event(rows=1, numbers=2, bounded="message", clipping_bound=1.0, noise_stddev=4.0)


def key(server_round):
    return SimpleNamespace(experiment_id="e", server_round=server_round, request_hash="h")


@pytest.fixture
def folder(tmp_path):
    ServerLedger.create(tmp_path / "server-ledger")
    return tmp_path / "server-ledger"


def test_whoever_is_asked_is_charged_and_a_restart_remembers(folder):
    """mu of a release is 2 / 4; of two it is sqrt(2) / 2. What is asked again counts again."""
    ledger = ServerLedger(folder, Budget(delta=1e-5))
    assert (ledger.max_epsilon, ledger.max_participations) == (0, 0)
    ledger.record(["ann", "bob"], key(1), EVENT)
    ledger.record(["bob"], key(2), EVENT)
    ledger.record([], key(3), EVENT)
    for found in (ledger, ServerLedger(folder, Budget(delta=1e-5))):
        assert found.max_mu == pytest.approx(math.sqrt(2) / 2)
        assert found.max_epsilon == pytest.approx(gaussian_epsilon(math.sqrt(2) / 2, 1e-5))
        assert found.max_participations == 2
    again = ServerLedger(folder, Budget(delta=1e-5))
    again.record(["bob"], key(2), EVENT)
    assert ServerLedger(folder, Budget()).max_participations == again.max_participations == 3


@pytest.mark.parametrize(
    "limit", [{"max_participations": 2}, {"max_epsilon": gaussian_epsilon(0.72, 1e-5)}]
)
def test_a_client_without_a_budget_is_not_asked_again(folder, limit):
    ledger = ServerLedger(folder, Budget(delta=1e-5, **limit))
    for server_round in (1, 2):
        assert not ledger.would_exceed("bob", EVENT)
        ledger.record(["bob"], key(server_round), EVENT)
    assert ledger.would_exceed("bob", EVENT)
    assert not ledger.would_exceed("ann", EVENT)
    assert not ledger.all_exhausted(["ann", "bob"], EVENT)
    assert ledger.all_exhausted(["bob"], EVENT)
    assert not ledger.all_exhausted(["ann", "bob"], EVENT), "ann joined"


@pytest.mark.parametrize("name", [LEDGER, HEAD, REPLIES])
def test_a_count_that_is_gone_is_not_begun_anew(folder, name):
    ServerLedger(folder, Budget()).record(["ann"], key(1), EVENT)
    ServerLedger.create(folder)
    assert ServerLedger(folder, Budget()).max_participations == 1
    (folder / name).unlink()
    ServerLedger.create(folder)
    with pytest.raises(LedgerUnavailable):
        ServerLedger(folder, Budget())
