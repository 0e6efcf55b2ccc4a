from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.dp_merf import generator_from, releases, train_dp_merf
from fed_gswgan.baselines.dp_merf_settings import DPMERFSettings
from fed_gswgan.baselines.mean_embedding import FittingSettings, mean_embedding
from fed_gswgan.baselines.random_features import RandomFeatures
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.evaluation.samplers import draw_samples
from fed_gswgan.seeding import SeedStream

DELTA = 1e-5
FITTING = FittingSettings(
    steps=3, samples_per_class=3, learning_rate=0.01, final_learning_rate_share=0.5
)
TINY = DPMERFSettings(
    frequencies=8,
    kernel_variances=(50.0,),
    latent_dim=2,
    hidden_width=5,
    channels=2,
    fitting=FITTING,
)


@pytest.fixture
def train(data):
    def train(settings=TINY, seed=0, epsilon=10.0, progress=lambda share: None):
        return train_dp_merf(*data(), 4, settings, epsilon, DELTA, seed, progress)

    return train


def samples_of(baseline):
    return draw_samples(baseline.sampler, torch.arange(8) % 4, "test", 1)


@pytest.mark.parametrize("epsilon", [0.5, 10.0])
def test_the_declared_release_spends_the_epsilon_asked_for(train, epsilon):
    baseline = train(epsilon=epsilon)
    assert epsilon * 0.998 < epsilon_of(baseline.releases, DELTA) <= epsilon


def test_known_noise_of_one_gaussian(train):
    # At delta 1e-5: half the sensitivity at epsilon 10, 3.73 of it at epsilon 1.
    assert 1 / train(epsilon=10.0).releases[0].mu == pytest.approx(0.500, abs=1e-3)
    assert 1 / train(epsilon=1.0).releases[0].mu == pytest.approx(3.73, abs=5e-3)


def test_the_published_accounting_is_a_looser_bound_on_the_same_noise(train):
    baseline = train(epsilon=10.0)
    noise, orders = 1 / baseline.releases[0].mu, np.linspace(1.001, 100, 200_000)
    bound = orders / (2 * noise**2) + np.log(1 / DELTA) / (orders - 1)
    assert baseline.published_epsilon == pytest.approx(bound.min(), rel=1e-6)
    assert baseline.published_epsilon > 10
    assert "Rényi" in baseline.published_accounting


def test_the_generator_sees_of_the_data_what_is_released_and_nothing_else(data):
    images_NCHW, labels_N = data()
    features = RandomFeatures(784, 8, (50.0,), np.random.default_rng(0), torch.device("cpu"))
    points_NP, order = images_NCHW.flatten(1), torch.randperm(40)
    embeddings = [
        mean_embedding(features, points_NP, labels_N, 4),
        # Other data with the same embedding: other order, and everything twice.
        mean_embedding(features, points_NP[order].repeat(2, 1), labels_N[order].repeat(2), 4),
    ]
    assert embeddings[0] == pytest.approx(embeddings[1], abs=1e-7)
    released_FL = embeddings[0].float()

    def weights(released):
        network = generator_from(
            released, IMAGE_SHAPE, features, TINY, SeedStream(3), lambda share: None
        )
        return torch.nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(weights(released_FL), weights(released_FL.clone()))
    assert not torch.equal(weights(released_FL), weights(released_FL + 0.1))


def test_data_are_read_through_the_embedding_alone(data, monkeypatch):
    fixed = torch.full((16, 4), 0.01, dtype=torch.float64)
    monkeypatch.setattr("fed_gswgan.baselines.dp_merf.mean_embedding", lambda *arguments: fixed)
    images_NCHW, labels_N = data()
    first = train_dp_merf(images_NCHW, labels_N, 4, TINY, 10.0, DELTA, 0)
    second = train_dp_merf(1 - images_NCHW, labels_N.flip(0), 4, TINY, 10.0, DELTA, 0)
    assert torch.equal(samples_of(first), samples_of(second))


def test_the_same_seed_gives_the_same_samples_and_leaves_global_randomness_alone(train):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first, second, other = train(seed=1), train(seed=1), train(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(samples_of(first), samples_of(second))
    assert not torch.equal(samples_of(first), samples_of(other))


def test_the_sampler_keeps_its_contract(train):
    baseline, labels_B = train(), torch.tensor([3, 0, 0])
    samples_BCHW = draw_samples(baseline.sampler, labels_B, "test", 1)
    assert samples_BCHW.shape == (3, 1, 28, 28)
    assert torch.equal(baseline.sampler(labels_B, 4), baseline.sampler(labels_B, 4))
    assert not torch.equal(baseline.sampler(labels_B, 4), baseline.sampler(labels_B, 5))


def test_samples_of_bright_and_dark_classes_differ():
    labels_N = torch.arange(400) % 2
    images_NCHW = labels_N.float()[:, None, None, None].expand(-1, 1, 28, 28)
    fitting = replace(FITTING, steps=60, samples_per_class=10, learning_rate=0.03)
    settings = replace(TINY, frequencies=50, kernel_variances=(200.0,), fitting=fitting)
    baseline = train_dp_merf(images_NCHW, labels_N, 2, settings, 10.0, DELTA, 0)
    dark, bright = baseline.sampler(torch.tensor([0, 1]), 0).mean((1, 2, 3))
    assert dark < 0.2
    assert bright > 0.8


def test_progress_grows_to_one(train):
    told = []
    train(progress=told.append)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_more_noise_costs_less():
    assert epsilon_of(releases(2.0), DELTA) < epsilon_of(releases(1.0), DELTA)
