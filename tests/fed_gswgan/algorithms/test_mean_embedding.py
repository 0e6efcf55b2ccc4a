"""The mean embedding against its formula, and a generator that learns from it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fed_gswgan.algorithms.base import Mean, ReleaseShape
from fed_gswgan.algorithms.mean_embedding import (
    Client,
    Server,
    Settings,
    frequencies_of,
    keeps_state,
    mean_waves,
    resolved,
    waves_of_each,
)
from fed_gswgan.basis import to_release_basis
from fed_gswgan.field import adapt
from fed_gswgan.seeding import SeedStream

TINY = {"features": "dct", "feature-frequencies": 3, "points": 2, "fit-steps": 8,
        "generator-width": 4, "latent-dim": 3}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(adapt, "SAMPLES", 12)
    monkeypatch.setattr(adapt, "LEAST_SAMPLES", 4)


def both(spec, **changed):
    settings = Settings.from_table(TINY | changed)
    return Client(settings, spec), Server(settings, spec, SeedStream(0), rounds=2)


def test_waves_by_hand():
    images = torch.tensor([[0.0, 0.0], [math.pi, 0.0]])
    found = mean_waves(torch.tensor([[1.0, 0.0], [0.5, 3.0]]), images, None)
    assert found.tolist() == [
        pytest.approx([0, 0], abs=1e-6), pytest.approx([0.5, 0.5], abs=1e-6)
    ]  # fmt: skip
    weights = torch.tensor([0.25, 0.75])
    weighted = mean_waves(torch.tensor([[1.0, 0.0]]), images, weights)
    assert weighted[0].tolist() == pytest.approx([-0.5, 0], abs=1e-6)
    stacked = mean_waves(torch.ones(2, 3, 2), images.expand(2, 2, 2), None)
    assert stacked.shape == (2, 3, 2)
    assert waves_of_each(torch.ones(3, 2), images).shape == (2, 3, 2)


def test_the_inner_product_of_embeddings_is_a_kernel():
    """Of many frequencies the mean cosine of a difference is the mixture's characteristic value."""
    frequencies = frequencies_of(7, 2.0, (1, 200_000, 1))[0]
    first, second = torch.tensor([[0.0]]), torch.tensor([[3.0]])
    embedded = [mean_waves(frequencies, images, None) for images in (first, second)]
    found = float((embedded[0] * embedded[1]).sum(1).mean())
    draws = 2.0 * np.exp(np.random.default_rng(0).standard_normal(200_000))
    assert found == pytest.approx(np.exp(-9 / (2 * draws**2)).mean(), abs=0.01)


def test_an_answer_is_the_mean_embedding_less_the_public_one(spec, view, asked):
    client, server = both(spec)
    query = server.request(1)
    request = asked(query)
    client.check(request)
    assert client.release(1) == ReleaseShape(27, 2, 3, "message")
    assert not keeps_state(Settings())
    update = client.update(request, view())
    dataset, width = view().dataset, query.scalars["width"]
    features = to_release_basis(dataset.images, 3).reshape(6, 9)
    frequencies = frequencies_of(query.scalars["seed"], width, (3, 9, 9))[0].double().numpy()
    expected = np.empty((3, 9, 2))
    for label in range(3):
        angles = features[dataset.labels == label] @ frequencies.T
        mine = np.stack([np.cos(angles).mean(0), np.sin(angles).mean(0)], 1)
        expected[label] = mine - query.tensors["public"][label]
    found = update.rows_RN / (update.extra_E[0] / (0.7 * math.sqrt(9)))
    assert found == pytest.approx(expected.reshape(27, 2), abs=1e-3)


def test_what_no_server_sends_is_refused(spec, asked):
    client, server = both(spec)
    good = server.request(1)
    public = good.tensors["public"]

    def request(public=public, **scalars):
        known = {**good.scalars, **scalars}
        return SimpleNamespace(server_round=1, tensors={"public": public}, scalars=known)

    client.check(request())
    wrong = [
        request(public[:2]), request(public.astype("f4")), request(seed=-1), request(seed=1.5),
        request(width=0.0), request(width=1e9), request(width=3), request(features="0" * 64),
        request(more=1),
    ]  # fmt: skip
    for one in wrong:
        with pytest.raises(ValueError, match="must"):
            client.check(one)
    with pytest.raises(ValueError, match="tensors must be public"):
        client.check(asked(SimpleNamespace(tensors={}, scalars=good.scalars)))


def test_a_step_fits_the_generator_and_goes_on_from_its_state(spec, view, asked):
    client, server = both(spec)
    query = server.request(1)
    update = client.update(asked(query), view())
    length = math.sqrt((update.rows_RN**2).sum() + (update.extra_E**2).sum())
    mean = Mean(update.rows_RN / length, update.extra_E / length, clients=1, noise_stddev=0.0)
    before = server.sampler()(torch.arange(3), 0)
    assert all(math.isfinite(value) for value in server.step(1, query, mean).metrics.values())
    after = server.sampler()(torch.arange(3), 0)
    assert not torch.equal(after, before)
    other = both(spec)[1]
    other.load_state_dict(server.state_dict())
    assert torch.equal(other.sampler()(torch.arange(3), 0), after)
    again, query = other.request(2), server.request(2)
    assert np.array_equal(again.tensors["public"], query.tensors["public"])
    assert again.scalars == query.scalars


def test_the_noise_decides_how_many_frequencies(spec):
    assert Client(resolved(Settings(features="dct"), spec, 0.001), spec).frequencies > (
        Client(resolved(Settings(features="dct"), spec, 0.03), spec).frequencies
    )
