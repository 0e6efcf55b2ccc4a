"""Private evolution: votes by hand, and a pool that they weight."""

import numpy as np
import pytest
import torch

from fed_gswgan.algorithms.base import ClientView, Mean, ReleaseShape
from fed_gswgan.algorithms.private_evolution import Client, Server, Settings, keeps_state
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.field import adapt
from fed_gswgan.seeding import SeedStream

CLASSES = ("1", "7")
SPEC = DataSpec((1, 28, 28), 2, CLASSES)
TINY = Settings(prior="strokes", features="dct", cells=4, points=1, fit_steps=4)


@pytest.fixture(autouse=True)
def small(monkeypatch, few_drawings):
    few_drawings(60)
    monkeypatch.setattr(adapt, "SAMPLES", 12)
    monkeypatch.setattr(adapt, "LEAST_SAMPLES", 4)


def holder_of(images, labels):
    dataset = ClientDataset(("ann",), images, np.array(labels))
    return ClientView("ann", ("ann",), lambda: dataset, SeedStream(3))


def test_a_client_votes_for_the_cells_that_its_images_are_nearest_to(asked):
    client, server = Client(TINY, SPEC), Server(TINY, SPEC, SeedStream(0), 2)
    assert client.release(1) == ReleaseShape(2, 4, 0, "message")
    assert not keeps_state(TINY)
    request = asked(server.request(1))
    client.check(request)
    # Images of the pool itself vote for their own cells.
    pool = server.adaptation.pool.images_LMHW
    images = torch.cat([pool[0, :5], pool[1, :2]])[:, None].numpy()
    update = client.update(request, holder_of(images, [0] * 5 + [1] * 2))
    cells = server.cells.cell_of_LM
    votes = [np.bincount(cells[0, :5], minlength=4), np.bincount(cells[1, :2], minlength=4)]
    assert update.rows_RN / update.rows_RN.sum() * 7 == pytest.approx(np.stack(votes), rel=1e-6)
    nothing = client.update(request, holder_of(images[:0], np.empty(0, np.int64)))
    assert not nothing.rows_RN.any()
    for wrong in ({"centres": request.tensors["centres"][:1]}, {}):
        with pytest.raises(ValueError, match="must be"):
            client.check(asked(type("Q", (), {"tensors": wrong, "scalars": request.scalars})))


def test_votes_without_noise_weight_the_pool_as_they_are(asked):
    server = Server(TINY, SPEC, SeedStream(0), 2)
    votes = np.array([[0.0, 3.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    server.step(1, server.request(1), Mean(votes, np.empty(0), clients=3, noise_stddev=0.0))
    weights, cells = server.adaptation.log_weights_LM.exp(), server.cells.cell_of_LM
    found = [[float(weights[c][cells[c] == v].sum()) for v in range(4)] for c in range(2)]
    assert found[0] == pytest.approx([0, 0.75, 0.25, 0], abs=1e-4)
    assert found[1] == pytest.approx([0.25] * 4, abs=1e-4)


def test_the_noisier_the_votes_the_nearer_the_weights_to_the_pool():
    votes, spread = np.array([[0.0, 3.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]), []
    for noise in (0.1, 1.0, 100.0):
        server = Server(TINY, SPEC, SeedStream(0), 2)
        server.step(1, server.request(1), Mean(votes, np.empty(0), clients=3, noise_stddev=noise))
        spread.append(float(server.adaptation.log_weights_LM[0].exp().std()))
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-3


def test_two_releases_add_up_and_a_resumed_server_goes_on():
    votes = np.array([[0.0, 3.0, 1.0, 0.0], [1.0, 2.0, 1.0, 1.0]])
    mean = Mean(votes, np.empty(0), clients=3, noise_stddev=0.2)
    server = Server(TINY, SPEC, SeedStream(0), 2)
    server.step(1, server.request(1), mean)
    resumed = Server(TINY, SPEC, SeedStream(0), 2)
    resumed.load_state_dict(server.state_dict())
    for one in (server, resumed):
        one.step(2, one.request(2), mean)
    first, second = server.state_dict(), resumed.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["votes/sum"].numpy() == pytest.approx(2 * votes)
    labels = torch.arange(2)
    assert torch.equal(server.sampler()(labels, 0), resumed.sampler()(labels, 0))


def test_without_a_pool_there_is_nothing_to_vote_for():
    with pytest.raises(ValueError, match="prior=none must be a prior under algorithm=private-evol"):
        Server(Settings(), SPEC, SeedStream(0), 1)
