import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines import dp_merf_autoencoder
from fed_gswgan.baselines.dp_merf_autoencoder import train_dp_merf_autoencoder
from fed_gswgan.baselines.dp_merf_autoencoder_settings import DPMERFAutoencoderSettings
from fed_gswgan.baselines.mean_embedding import FittingSettings
from fed_gswgan.baselines.private_autoencoder import Autoencoder, AutoencoderSettings
from fed_gswgan.baselines.renyi_accounting import ORDERS
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.evaluation.samplers import draw_samples

DELTA = 1e-5
TINY = DPMERFAutoencoderSettings(
    autoencoder=AutoencoderSettings(
        hidden_width=6, code_dim=3, steps=4, batch_size=8, learning_rate=0.01, clipping_bound=1.0
    ),
    embedding_noise_ratio=2.0,
    frequencies=8,
    kernel_variances=(0.5,),
    latent_dim=2,
    generator_width=5,
    fitting=FittingSettings(
        steps=3, samples_per_class=3, learning_rate=0.01, final_learning_rate_share=0.5
    ),
)


@pytest.fixture
def train(data):
    def train(seed=0, epsilon=10.0, progress=lambda share: None, count=40):
        return train_dp_merf_autoencoder(*data(count), 4, TINY, epsilon, DELTA, seed, progress)

    return train


def samples_of(baseline):
    return draw_samples(baseline.sampler, torch.arange(8) % 4, "test", 1)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_both_releases_together_spend_the_epsilon_asked_for(train, epsilon):
    releases = train(epsilon=epsilon).releases
    assert epsilon * 0.99 < epsilon_of(releases, DELTA) <= epsilon
    assert [release.rounds for release in releases] == [4, 1]
    assert releases[0].sampling_probability == 8 / 40
    assert releases[1].mu == pytest.approx(releases[0].mu / 2)


def test_the_noise_that_is_declared_is_the_noise_that_is_added(train, monkeypatch):
    added = {}

    def training(images_NCHW, settings, noise_multiplier, seeds, progress):
        added["gradients"] = noise_multiplier
        return Autoencoder(IMAGE_SHAPE, settings.hidden_width, settings.code_dim).requires_grad_(
            False
        )

    def release(embedding_FL, count, relation, noise_multiplier, noise):
        added["embedding"], added["count"], added["relation"] = noise_multiplier, count, relation
        return embedding_FL.float()

    monkeypatch.setattr(dp_merf_autoencoder, "train_private_autoencoder", training)
    monkeypatch.setattr(dp_merf_autoencoder, "release_embedding", release)
    gradients, embedding = train().releases
    assert added["gradients"] == pytest.approx(1 / gradients.mu)
    assert added["embedding"] == pytest.approx(1 / embedding.mu)
    assert (added["count"], added["relation"]) == (40, embedding.relation)


def test_the_published_accounting_agrees_with_dp_accountings(train):
    baseline = train()
    gradients, embedding = baseline.releases
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    sampled = dp_event.PoissonSampledDpEvent(8 / 40, dp_event.GaussianDpEvent(1 / gradients.mu))
    accountant.compose(sampled, 4)
    accountant.compose(dp_event.GaussianDpEvent(1 / embedding.mu))
    assert baseline.published_epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)
    assert baseline.published_epsilon > 10


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


def test_progress_grows_to_one(train):
    told = []
    train(progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_too_few_images_are_refused(train):
    with pytest.raises(ValueError, match=r"^batch-size=8 must be at most the 4 training images"):
        train(count=4)
