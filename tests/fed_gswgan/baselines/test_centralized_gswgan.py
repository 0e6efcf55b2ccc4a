from dataclasses import replace

import numpy as np
import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of, published_epsilon
from fed_gswgan.baselines.centralized_gswgan import train_centralized_gswgan
from fed_gswgan.baselines.centralized_gswgan_settings import CentralizedGSWGANSettings
from fed_gswgan.critics.wgan_gp import CriticSettings
from fed_gswgan.models.registry import GeneratorSettings
from fed_gswgan.privacy.mechanism import privatize

DELTA = 1e-5
TINY = CentralizedGSWGANSettings(
    critics=4,
    steps=6,
    batch_size=5,
    generator=GeneratorSettings(generator_width=4),
    critic=CriticSettings(
        critic_width=8, critic_state="snapshot", critic_steps=2, warm_start_steps=1
    ),
)


def in_state(critic_state):
    return TINY.critic.model_copy(update={"critic_state": critic_state})


@pytest.fixture
def train(data):
    def train(settings, seed=0, epsilon=10.0, progress=lambda share: None):
        return train_centralized_gswgan(*data(), 4, settings, epsilon, DELTA, seed, progress)

    return train


def samples_of(baseline) -> torch.Tensor:
    return baseline.sampler(torch.arange(4), 1)


@pytest.mark.parametrize("critic_state", ["snapshot", "persistent"])
@pytest.mark.parametrize("clipping", ["sample", "message"])
def test_the_declared_releases_stay_within_the_epsilon_asked_for(train, critic_state, clipping):
    settings = replace(TINY, clipping=clipping, critic=in_state(critic_state))
    baseline = train(settings)
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    (release,) = baseline.releases
    assert release.rounds == settings.steps
    assert release.sampling_probability == 1 / settings.critics


def test_published_accounting_is_that_of_the_noise_that_was_added(train):
    baseline = train(TINY)
    noise_stddev = 2 * np.sqrt(TINY.batch_size) / baseline.releases[0].mu
    expected = published_epsilon(TINY.event(noise_stddev), 1 / 4, TINY.steps, DELTA)
    assert baseline.published_epsilon == pytest.approx(expected)


def test_same_seed_same_samples_and_another_seed_others(train):
    torch.manual_seed(3)
    first = samples_of(train(TINY))
    after_training = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after_training, torch.rand(1))
    assert torch.equal(first, samples_of(train(TINY)))
    assert not torch.equal(first, samples_of(train(TINY, seed=1)))


def test_every_gradient_that_steps_the_generator_was_sanitized(train, monkeypatch):
    rows = []

    def recording(rows_BP, extra, event, noise):
        rows.append((len(rows_BP), event))
        return privatize(rows_BP, extra, event, noise)

    monkeypatch.setattr("fed_gswgan.baselines.centralized_gswgan.privatize", recording)
    baseline = train(TINY)
    assert [count for count, _ in rows] == [TINY.batch_size] * TINY.steps
    noise_stddev = 2 * np.sqrt(TINY.batch_size) / baseline.releases[0].mu
    assert [event.noise_stddev for _, event in rows] == pytest.approx([noise_stddev] * 6)


def test_a_snapshot_forgets_and_a_persistent_critic_does_not(train, monkeypatch):
    private = {}
    for critic_state in ("snapshot", "persistent"):
        rows = private.setdefault(critic_state, [])

        def recording(rows_BP, extra, event, noise, rows=rows):
            rows.append(rows_BP.copy())
            return privatize(rows_BP, extra, event, noise)

        monkeypatch.setattr("fed_gswgan.baselines.centralized_gswgan.privatize", recording)
        train(replace(TINY, critic=in_state(critic_state)), epsilon=1e6)
    # The first of the steps is the same; later ones meet critics that were, or were not, changed.
    assert np.array_equal(private["snapshot"][0], private["persistent"][0])
    assert not np.array_equal(private["snapshot"][-1], private["persistent"][-1])


def test_progress_reaches_one_and_never_falls(train):
    shares: list[float] = []
    train(TINY, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_fewer_images_than_critics_are_refused(train):
    with pytest.raises(ValueError, match=r"critics=50 must be at most the 40 training images"):
        train(replace(TINY, critics=50))
