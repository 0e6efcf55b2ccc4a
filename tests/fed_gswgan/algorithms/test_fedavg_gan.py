"""FedAvg-GAN against a slow reference of its update and its step, in networks of few numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fed_gswgan.algorithms.base import Mean, ReleaseShape
from fed_gswgan.algorithms.fedavg_gan import Client, Server, Settings, keeps_state
from fed_gswgan.models.registry import build_critic, build_generator, load_state_vector
from fed_gswgan.seeding import SeedStream

TINY = {
    "batch-size": 4, "critic-width": 6, "critic-steps": 3, "critic-learning-rate": 0.05,
    "generator-width": 4, "latent-dim": 3, "latent-kind": "bernoulli",
    "server-learning-rate": 0.5, "generator-steps": 2,
}  # fmt: skip
SETTINGS = Settings.from_table(TINY)
SEEDS = SeedStream(0)


@pytest.fixture
def client(spec):
    return Client(SETTINGS, spec)


@pytest.fixture
def server(spec):
    return Server(SETTINGS, spec, SEEDS, rounds=10)


def test_a_release_is_the_critic_as_one_row_bounded_as_a_whole(client, server):
    numbers = server.request(1).tensors["critic"].size
    parameters = sum(p.numel() for p in server.critic.parameters())
    assert client.release(3) == ReleaseShape(1, numbers, 0, "message")
    assert numbers == parameters
    assert keeps_state(SETTINGS) is False


def test_what_no_server_sends_is_refused(client, server, asked):
    request = asked(server.request(1))
    client.check(request)
    generator, critic = request.tensors["generator"], request.tensors["critic"]
    wrong = [
        {"generator": generator}, {"generator": critic, "critic": generator},
        {"generator": generator, "critic": critic[None]},
        {"generator": generator, "critic": critic.astype(np.int64)},
        {"generator": generator, "critic": critic, "labels": critic},
    ]  # fmt: skip
    for tensors in wrong:
        with pytest.raises(ValueError, match="must be"):
            client.check(SimpleNamespace(server_round=1, tensors=tensors, scalars={}))
    with pytest.raises(ValueError, match="no scalars"):
        client.check(SimpleNamespace(tensors=request.tensors, scalars={"steps": 1}))


def test_the_update_is_that_of_plain_sgd(spec, client, server, view, asked):
    request = asked(server.request(2), server_round=2)
    critic = build_critic(SETTINGS, spec, seed=1)
    generator = build_generator(SETTINGS, spec, seed=1).eval()
    load_state_vector(critic, request.tensors["critic"])
    load_state_vector(generator, request.tensors["generator"])
    randomness = view().randomness("critic-update", 2)
    latents = torch.tensor(randomness.integers(0, 2, size=(12, 3)).astype(np.float32))
    wanted = randomness.integers(0, 3, size=12)
    images, own = view().dataset.images, view().dataset.labels
    before = np.concatenate([p.detach().numpy().ravel() for p in critic.parameters()])
    with torch.no_grad():
        samples = generator(latents, torch.tensor(wanted))
    for step in range(3):
        rows = slice(4 * step, 4 * step + 4)
        of_label = [np.flatnonzero(own == label) for label in wanted[rows]]
        picks = randomness.integers([len(places) for places in of_label])
        real = torch.tensor(images[[p[k] for p, k in zip(of_label, picks, strict=True)]])
        mix = torch.tensor(randomness.random(4, dtype=np.float32))[:, None, None, None]
        labels = torch.tensor(wanted[rows])
        between = (mix * real + (1 - mix) * samples[rows]).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between, labels).sum(), between, create_graph=True)
        scores = critic(real, labels)
        loss = critic(samples[rows], labels).mean() - scores.mean() + 1e-3 * (scores**2).mean()
        loss = loss + 10.0 * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        weights = list(critic.parameters())
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.05 * (0 if gradient is None else gradient)
    after = np.concatenate([p.detach().numpy().ravel() for p in critic.parameters()])
    update = client.update(request, view())
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(update.rows_RN[0], after - before, rtol=1e-3, atol=1e-5)
    assert update.state is None


def test_the_critic_moves_by_the_mean_and_the_generator_against_it(server, client):
    before = server.request(1).tensors
    ones = np.ones((1, client.release(1).numbers))
    step = server.step(1, None, Mean(ones, np.empty(0), clients=2, noise_stddev=0.1))
    after = server.request(2).tensors
    np.testing.assert_allclose(after["critic"], before["critic"] + 0.5, rtol=1e-6)
    moved = np.abs(after["generator"] - before["generator"])
    assert 1e-3 < moved.max() < 2 * 2e-3 * 2, "two steps of Adam at 0.002"
    assert step.metrics["combined_gradient_norm"] == pytest.approx(ones.size**0.5, rel=1e-5)
    assert step.stop == ""


def test_a_restored_server_goes_on_to_the_bit(spec, server, client):
    def mean(seed):
        rows = np.random.default_rng(seed).standard_normal((1, client.release(1).numbers))
        return Mean(0.1 * rows, np.empty(0), clients=3, noise_stddev=0.1)

    for server_round in (1, 2):
        server.step(server_round, None, mean(server_round))
    other = Server(SETTINGS, spec, SEEDS, rounds=10)
    other.load_state_dict({name: t.clone() for name, t in server.state_dict().items()})
    for half in (server, other):
        half.step(3, None, mean(3))
    first, second = server.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    labels_B = torch.arange(3)
    assert server.sampler()(labels_B, 1).equal(other.sampler()(labels_B, 1))
