from dataclasses import replace

import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines import dp_merf_autoencoder
from fed_gswgan.baselines.dp_merf_autoencoder import (
    FULL,
    SMALL,
    Autoencoder,
    AutoencoderSettings,
    CodeGenerator,
    DecodedGenerator,
    train_private_autoencoder,
)
from fed_gswgan.baselines.dp_sgd import ORDERS
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.seeding import SeedStream

DELTA = 1e-5
AUTOENCODER = AutoencoderSettings(
    hidden_width=6, code_dim=3, steps=4, batch_size=8, learning_rate=0.01, clipping_bound=0.7
)
TINY = replace(
    SMALL, autoencoder=AUTOENCODER, embedding_noise_ratio=2.0, frequencies=8,
    fitting=replace(SMALL.fitting, steps=3),
)  # fmt: skip


@pytest.fixture
def train(data):
    return lambda: dp_merf_autoencoder.train(*data(), 4, TINY, 10.0, DELTA, 0)


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


def test_the_presets_leave_most_of_the_budget_to_the_autoencoder():
    for settings in (SMALL, FULL):
        training, embedding = settings.releases(60_000, 0.6)
        assert epsilon_of((embedding,), DELTA) < 0.5 * epsilon_of((training,), DELTA)


def images(count=30):
    return torch.rand((count, 1, 28, 28), generator=torch.Generator().manual_seed(5))


def test_codes_have_norm_one_and_decode_to_images():
    network = Autoencoder(IMAGE_SHAPE, 6, 3)
    network.requires_grad_(False)
    codes_BD = network.codes(images())
    assert codes_BD.norm(dim=1) == pytest.approx(torch.ones(30), abs=1e-6)
    decoded = network.decoded(codes_BD)
    assert decoded.shape == (30, 1, 28, 28)
    assert torch.allclose(decoded.flatten(1), torch.sigmoid(network(images())))


def test_it_learns_to_tell_two_images_apart():
    pair = images(2).round().repeat(100, 1, 1, 1)
    settings = replace(AUTOENCODER, steps=150, batch_size=50, hidden_width=30, learning_rate=0.02)
    network = train_private_autoencoder(pair, settings, 0.5, SeedStream(0), lambda share: None)
    errors = (network.decoded(network.codes(pair[:2])) - pair[:2]).abs().mean()
    assert errors < 0.2  # without telling them apart, 0.25


def test_the_noise_of_a_step_has_the_stated_deviation(monkeypatch):
    # SGD of rate 1 moves each weight by its noisy gradient over the expected batch size.
    monkeypatch.setattr(torch.optim, "Adam", lambda weights, lr: torch.optim.SGD(weights, lr=1.0))
    settings = replace(AUTOENCODER, steps=1, hidden_width=40)
    quiet, noisy = (
        torch.nn.utils.parameters_to_vector(
            train_private_autoencoder(
                images(), settings, multiplier, SeedStream(0), lambda share: None
            ).parameters()
        )
        for multiplier in (0.0, 50.0)
    )
    assert (noisy - quiet).std().item() == pytest.approx(50 * 0.7 / 8, rel=0.02)


def test_codes_that_are_generated_have_norm_one():
    generator = CodeGenerator(latent_dim=2, num_classes=4, width=5, code_dim=3)
    codes_BD = generator(torch.randn(9, 2), torch.arange(9) % 4).detach()
    assert codes_BD.norm(dim=1) == pytest.approx(torch.ones(9), abs=1e-6)
    assert not torch.allclose(codes_BD[0], codes_BD[4])


def test_samples_are_the_codes_decoded():
    generator = CodeGenerator(latent_dim=2, num_classes=4, width=5, code_dim=3).eval()
    autoencoder, latents_BZ, labels_B = (
        Autoencoder(IMAGE_SHAPE, 6, 3),
        torch.randn(4, 2),
        torch.arange(4),
    )
    samples_BCHW = DecodedGenerator(generator, autoencoder)(latents_BZ, labels_B)
    assert samples_BCHW.shape == (4, 1, 28, 28)
    assert torch.equal(samples_BCHW, autoencoder.decoded(generator(latents_BZ, labels_B)))
