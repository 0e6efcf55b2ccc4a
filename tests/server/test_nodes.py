import pytest

from fed_gswgan.config import CohortConfig
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.byte_meter import ByteMeter
from server.cohort_sampling import select_cohort
from server.roster import Roster
from simulations.virtual_nodes import VirtualNodes

VIRTUAL = VirtualNodes(30)
REGISTERED = Roster(
    {VIRTUAL[i]: VIRTUAL.node_id(VIRTUAL[i]) for i in range(29, -1, -1)}, ByteMeter()
)


def test_registered_clients_are_in_the_order_of_their_ids():
    nodes = Roster({"c": 7, "a": 2**64 - 1, "b": 5}, ByteMeter())
    assert [nodes[i] for i in range(len(nodes))] == ["a", "b", "c"]
    assert nodes.node_id("a") == 2**64 - 1


def test_virtual_clients_are_those_who_would_have_registered():
    assert len(VIRTUAL) == len(REGISTERED)
    for position in range(30):
        assert VIRTUAL[position] == REGISTERED[position]
        assert VIRTUAL.node_id(VIRTUAL[position]) == REGISTERED.node_id(REGISTERED[position])
    with pytest.raises(IndexError):
        VIRTUAL[30]


def test_both_give_the_same_cohorts():
    for method in ("fixed-size", "poisson"):
        config = CohortConfig(cohort_size=5, sampling_method=method)
        for server_round in range(1, 20):
            drawn = [
                select_cohort(n, server_round, config, SeedStream(3)) for n in (VIRTUAL, REGISTERED)
            ]
            assert drawn[0] == drawn[1]
