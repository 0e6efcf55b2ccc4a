"""How an algorithm is found by its name, shipped or plugged in."""

from types import SimpleNamespace

import pytest

from fed_gswgan.algorithms import base, fedavg_gan, gs_wgan
from fed_gswgan.algorithms.base import ClientView, algorithm_names, find_algorithm
from fed_gswgan.data.characters import DIGITS
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Settings
from tests.plug_ins import Ratio


class WithoutServer:
    Settings, Client = Settings, object


def test_every_module_of_the_package_is_an_algorithm_of_its_name(few_drawings):
    few_drawings(25)
    spec = DataSpec((1, 28, 28), 10, DIGITS)
    assert {"gs-wgan", "fedavg-gan", "mean-embedding", "private-evolution"} == set(
        algorithm_names()
    )
    assert "base" not in algorithm_names()
    assert (find_algorithm("gs-wgan"), find_algorithm("fedavg-gan")) == (gs_wgan, fedavg_gan)
    for name in algorithm_names():
        algorithm = find_algorithm(name)
        assert issubclass(algorithm.Settings, Settings)
        assert callable(algorithm.keeps_state)
        priors = {"prior": "strokes"} if "prior" in algorithm.Settings.model_fields else {}
        settings = algorithm.Settings(**priors)
        client = algorithm.Client(settings, spec)
        server = algorithm.Server(settings, spec, SeedStream(0), 1)
        for half, members in ((client, base.Client), (server, base.Server)):
            promised = {m for m in vars(members) if not m.startswith("_")}
            assert promised <= {m for m in dir(half) if not m.startswith("_")}


def test_a_class_elsewhere_is_an_algorithm():
    assert find_algorithm("tests.plug_ins:Ratio") is Ratio


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs_wgan", "algorithm='gs_wgan' must be one of fedavg-gan, gs-wgan, mean-emb"),
        ("base", "must be one of"),
        ("nowhere.at_all:Class", "No module named 'nowhere'; install it, or fix the name"),
        ("tests.plug_ins:Missing", "no attribute 'Missing'"),
        (f"{__name__}:WithoutServer", "has no keeps_state, Server"),
    ],
)
def test_a_name_that_is_no_algorithm_is_refused(name, said, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, __name__, SimpleNamespace(**globals()))
    with pytest.raises(ValueError, match=said):
        find_algorithm(name)


def test_nothing_private_of_a_client_is_in_its_repr(view):
    client = view("ann", {"critic": b"secret"})
    assert repr(client) == "ClientView(client_id='ann', users=('ann',))"
    assert "private" in repr(client.dataset)


def test_a_client_s_data_is_read_once_and_only_when_used(view):
    reads = []
    client = ClientView("ann", ("ann",), lambda: reads.append(1) or view().dataset, SeedStream(0))
    assert not reads
    assert client.dataset is client.dataset
    assert reads == [1]


def test_randomness_follows_from_purpose_round_and_client(view):
    def draw(name, *words):
        return view(name).randomness(*words).integers(2**62)

    assert draw("ann", "a", 1) == draw("ann", "a", 1)
    drawn = [draw(n, p, r) for n in ("ann", "bob") for p in "ab" for r in (1, 2)]
    drawn += [view(name).torch_seed("a") for name in ("ann", "bob")]
    assert len(set(drawn)) == len(drawn)
