from collections import Counter

import pytest

from fed_gswgan.config import CohortConfig
from fed_gswgan.seeding import SeedStream
from server.cohort_sampling import select_cohort

POPULATION = [f"client-{number:02d}" for number in range(20)]
SEEDS = SeedStream(0)


def fixed(size=5):
    return CohortConfig(cohort_size=size, sampling_method="fixed-size")


def poisson(size=5):
    return CohortConfig(cohort_size=size, sampling_method="poisson")


@pytest.fixture(scope="module")
def poisson_cohorts():
    return [select_cohort(POPULATION, n, poisson(5), SEEDS) for n in range(1, 2001)]


@pytest.mark.parametrize("size", [1, 5, 20])
def test_a_fixed_size_cohort_has_exactly_its_size_sorted_and_nobody_twice(size):
    for server_round in range(1, 101):
        cohort = select_cohort(POPULATION, server_round, fixed(size), SEEDS)
        assert len(cohort) == size
        assert cohort == sorted(set(cohort))
        assert set(cohort) <= set(POPULATION)


def test_a_cohort_larger_than_the_population_is_everybody():
    assert select_cohort(POPULATION, 1, fixed(50), SEEDS) == POPULATION
    assert select_cohort(POPULATION, 1, poisson(50), SEEDS) == POPULATION


def test_fixed_size_cohorts_ask_every_client_about_equally_often():
    asked = Counter(c for n in range(1, 2001) for c in select_cohort(POPULATION, n, fixed(), SEEDS))
    # 2000 x 5 / 20 = 500, with a standard deviation of sqrt(2000 x 1/4 x 3/4) = 19.4
    assert all(400 < asked[client_id] < 600 for client_id in POPULATION)


@pytest.mark.parametrize("config", [fixed(), poisson()], ids=["fixed-size", "poisson"])
def test_a_cohort_is_decided_by_seed_and_round(config):
    def cohorts(seed):
        return [select_cohort(POPULATION, n, config, SeedStream(seed)) for n in range(1, 11)]

    assert cohorts(3) == cohorts(3)
    assert cohorts(3) != cohorts(4)
    assert len({tuple(cohort) for cohort in cohorts(3)}) > 1


class Counted:
    """A population of any size that counts whose id it was asked for."""

    def __init__(self, size):
        self.size, self.told = size, 0

    def __len__(self):
        return self.size

    def __getitem__(self, position):
        self.told += 1
        return f"client-{position:05d}"


@pytest.mark.parametrize("config", [fixed(10), poisson(10)], ids=["fixed-size", "poisson"])
def test_only_the_ids_of_the_cohort_are_looked_up_in_a_large_population(config):
    population = Counted(100_000)
    for server_round in range(1, 11):
        before = population.told
        cohort = select_cohort(population, server_round, config, SEEDS)
        assert population.told - before == len(cohort) < 40


def test_a_poisson_cohort_has_the_mean_and_spread_of_independent_draws(poisson_cohorts):
    sizes = [len(cohort) for cohort in poisson_cohorts]
    mean = sum(sizes) / 2000
    variance = sum((size - mean) ** 2 for size in sizes) / 2000
    # Binomial of 20 draws at 1/4: mean 5 with a standard error of 0.043, variance 3.75.
    assert mean == pytest.approx(5, abs=0.2)
    assert variance == pytest.approx(3.75, abs=0.6)


def test_a_poisson_cohort_asks_every_client_about_equally_often(poisson_cohorts):
    asked = Counter(client_id for cohort in poisson_cohorts for client_id in cohort)
    assert all(400 < asked[client_id] < 600 for client_id in POPULATION)


def test_a_poisson_cohort_draws_clients_independently(poisson_cohorts):
    first, second = POPULATION[0], POPULATION[1]
    together = sum(first in cohort and second in cohort for cohort in poisson_cohorts)
    assert together == pytest.approx(125, abs=55)  # 2000 / 16, five standard deviations of 10.8


def test_a_poisson_cohort_may_be_empty():
    cohorts = [select_cohort(POPULATION, n, poisson(1), SEEDS) for n in range(1, 50)]
    assert [] in cohorts
    assert all(cohort == sorted(set(cohort)) for cohort in cohorts)


def test_an_id_of_64_bits_comes_back_digit_by_digit():
    population = sorted(str(2**64 - 1 - number) for number in range(10))
    assert set(select_cohort(population, 1, fixed(10), SEEDS)) == set(population)


def test_a_fixed_size_cohort_is_filled_up_when_some_are_absent_and_nobody_else_is_replaced():
    for server_round in range(1, 101):
        whole = select_cohort(POPULATION, server_round, fixed(), SEEDS)
        absent = {whole[0], whole[3], "client-07"}
        cohort = select_cohort(POPULATION, server_round, fixed(), SEEDS, absent)
        assert len(cohort) == 5
        assert cohort == sorted(set(cohort))
        assert not set(cohort) & absent
        assert set(whole) - absent <= set(cohort)


def test_who_fills_up_is_decided_by_seed_and_round_and_differs_between_rounds():
    absent = set(POPULATION[:15])
    cohorts = [select_cohort(POPULATION, n, fixed(2), SEEDS, absent) for n in range(1, 31)]
    again = [select_cohort(list(POPULATION), n, fixed(2), SEEDS, absent) for n in range(1, 31)]
    assert cohorts == again
    assert set().union(*cohorts) == set(POPULATION[15:])


def test_where_too_few_are_there_the_cohort_is_everybody_who_is():
    absent = set(POPULATION[2:])
    assert select_cohort(POPULATION, 1, fixed(), SEEDS, absent) == POPULATION[:2]
    assert select_cohort(POPULATION, 1, fixed(), SEEDS, set(POPULATION)) == []


def test_a_poisson_cohort_is_not_filled_up():
    for server_round in range(1, 50):
        whole = select_cohort(POPULATION, server_round, poisson(), SEEDS)
        absent = set(POPULATION[::3])
        cohort = select_cohort(POPULATION, server_round, poisson(), SEEDS, absent)
        assert cohort == [client_id for client_id in whole if client_id not in absent]
