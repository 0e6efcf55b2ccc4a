from dataclasses import replace

import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant

from fed_gswgan.baselines import dp_merf_autoencoder
from fed_gswgan.baselines.dp_merf_autoencoder import (
    FULL,
    ORDERS,
    SMALL,
    CodeGenerator,
    DPMERFAutoencoderSettings,
    train_dp_merf_autoencoder,
)
from fed_gswgan.baselines.mean_embedding import FittingSettings
from fed_gswgan.baselines.private_autoencoder import Autoencoder, AutoencoderSettings
from fed_gswgan.evaluation.sampler import draw_samples
from fed_gswgan.privacy.declared_releases import epsilon_of

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


def data(count=40):
    generator = torch.Generator().manual_seed(5)
    return torch.rand((count, 1, 28, 28), generator=generator), torch.arange(count) % 4


def train(settings=TINY, seed=0, epsilon=10.0, progress=lambda share: None, count=40):
    return train_dp_merf_autoencoder(*data(count), 4, settings, epsilon, DELTA, seed, progress)


def samples_of(baseline):
    return draw_samples(baseline.sampler, torch.arange(8) % 4, "test", 1)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_both_releases_together_spend_the_epsilon_asked_for(epsilon):
    releases = train(epsilon=epsilon).releases
    assert epsilon * 0.99 < epsilon_of(releases, DELTA) <= epsilon
    assert [release.rounds for release in releases] == [4, 1]
    assert releases[0].sampling_probability == 8 / 40
    assert releases[1].mu == pytest.approx(releases[0].mu / 2)


def test_the_presets_leave_most_of_the_budget_to_the_autoencoder():
    for settings in (SMALL, FULL):
        training, embedding = settings.releases(60_000, 0.6)
        assert epsilon_of((embedding,), DELTA) < 0.5 * epsilon_of((training,), DELTA)


def test_the_noise_that_is_declared_is_the_noise_that_is_added(monkeypatch):
    added = {}

    def training(images_NCHW, settings, noise_multiplier, seeds, progress):
        added["gradients"] = noise_multiplier
        return Autoencoder(settings.hidden_width, settings.code_dim).requires_grad_(False)

    def release(embedding_FL, count, relation, noise_multiplier, noise):
        added["embedding"], added["count"], added["relation"] = noise_multiplier, count, relation
        return embedding_FL.float()

    monkeypatch.setattr(dp_merf_autoencoder, "train_private_autoencoder", training)
    monkeypatch.setattr(dp_merf_autoencoder, "release_embedding", release)
    gradients, embedding = train().releases
    assert added["gradients"] == pytest.approx(1 / gradients.mu)
    assert added["embedding"] == pytest.approx(1 / embedding.mu)
    assert (added["count"], added["relation"]) == (40, embedding.relation)


def test_the_published_accounting_agrees_with_dp_accountings():
    baseline = train()
    gradients, embedding = baseline.releases
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    sampled = dp_event.PoissonSampledDpEvent(8 / 40, dp_event.GaussianDpEvent(1 / gradients.mu))
    accountant.compose(sampled, 4)
    accountant.compose(dp_event.GaussianDpEvent(1 / embedding.mu))
    assert baseline.published_epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)
    assert baseline.published_epsilon > 10


def test_codes_that_are_generated_have_norm_one():
    generator = CodeGenerator(latent_dim=2, num_classes=4, width=5, code_dim=3)
    codes_BD = generator(torch.randn(9, 2), torch.arange(9) % 4).detach()
    assert codes_BD.norm(dim=1) == pytest.approx(torch.ones(9), abs=1e-6)
    assert not torch.allclose(codes_BD[0], codes_BD[4])


def test_the_same_seed_gives_the_same_samples_and_leaves_global_randomness_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    first, second, other = train(seed=1), train(seed=1), train(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(samples_of(first), samples_of(second))
    assert not torch.equal(samples_of(first), samples_of(other))


def test_the_sampler_keeps_its_contract():
    baseline, labels_B = train(), torch.tensor([3, 0, 0])
    samples_BCHW = draw_samples(baseline.sampler, labels_B, "test", 1)
    assert samples_BCHW.shape == (3, 1, 28, 28)
    assert torch.equal(baseline.sampler(labels_B, 4), baseline.sampler(labels_B, 4))
    assert not torch.equal(baseline.sampler(labels_B, 4), baseline.sampler(labels_B, 5))


def test_progress_grows_to_one():
    told = []
    train(progress=told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"^batch-size=8 must be at most the 4 training images"):
        train(count=4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"embedding_noise_ratio": 0.0}, "embedding-noise-ratio=0.0 must"),
        ({"frequencies": 0}, "frequencies=0 must"),
        ({"kernel_variances": (-1.0,)}, "kernel-variance=-1.0 must"),
        ({"latent_dim": 0}, "latent-dim=0 must"),
        ({"generator_width": 0}, "generator-width=0 must"),
    ],
)
def test_nonsense_is_named(changed, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        replace(TINY, **changed)
