import numpy as np
import pytest

from fed_gswgan.seeding import SeedStream

STREAM = ("noise", 3, "client-00001")
OTHERS = [
    ("critic-training", 3, "client-00001"),
    ("noise", 4, "client-00001"),
    ("noise", 3, "client-00002"),
    ("noise", 31, "client-00001"),
    ("noise", 3, ""),
]


def draw(seed, *stream):
    return SeedStream(seed).generator(*stream).integers(2**62, size=4).tolist()


def test_same_arguments_give_the_same_draws():
    assert draw(1, *STREAM) == draw(1, *STREAM)
    assert SeedStream(1).torch_seed(*STREAM) == SeedStream(1).torch_seed(*STREAM)


@pytest.mark.parametrize("other", OTHERS)
def test_every_argument_gives_another_stream(other):
    assert set(draw(1, *STREAM)).isdisjoint(draw(1, *other))
    assert SeedStream(1).torch_seed(*STREAM) != SeedStream(1).torch_seed(*other)


def test_two_seeds_share_nothing():
    assert set(draw(1, *STREAM)).isdisjoint(draw(2, *STREAM))
    assert SeedStream(1).torch_seed(*STREAM) != SeedStream(2).torch_seed(*STREAM)


def test_a_seed_and_a_round_do_not_run_together():
    assert draw(1, "noise", 11) != draw(11, "noise", 1)
    assert draw(1, "noise", 1, "2") != draw(1, "noise", 12, "")


def test_draws_do_not_depend_on_the_order_of_calls():
    seeds = SeedStream(1)
    seeds.generator("noise", 1, "a").standard_normal(100)
    late = seeds.generator("noise", 1, "b").standard_normal(4)
    early = SeedStream(1).generator("noise", 1, "b").standard_normal(4)
    assert np.array_equal(late, early)


def test_torch_seed_fits_into_63_bits():
    seeds = [SeedStream(0).torch_seed("critic-weights", 0, str(i)) for i in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 200
    assert max(seeds) > 2**62


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].tolist()
    SeedStream(0).generator("noise").standard_normal(10)
    assert np.random.get_state()[1].tolist() == before
