from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.accounting.trust import SamplingMethod, epsilon_of, published_epsilon
from fed_gswgan.baselines.centralized_gswgan import FULL, SMALL, disjoint_shards, train
from fed_gswgan.privacy.mechanism import privatize

DELTA = 1e-5
TINY = {"critic_width": 8, "critic_steps": 2, "warm_start_steps": 1}
CRITIC = SMALL.critic.model_copy(update=TINY)
FEW = replace(SMALL, critics=4, steps=6, batch_size=5, clipping="sample", critic=CRITIC)
REMEMBERS = replace(FEW, critic=CRITIC.model_copy(update={"critic_state": "persistent"}))


def test_a_critic_that_remembers_gets_no_amplification():
    (forgetful,), (remembering,) = FEW.releases(5.0), REMEMBERS.releases(5.0)
    assert forgetful.sampling is SamplingMethod.FIXED_SIZE
    assert remembering.sampling is SamplingMethod.REVEALED
    assert epsilon_of((remembering,), DELTA) > epsilon_of((forgetful,), DELTA)


def test_a_step_costs_what_its_rows_cost_together():
    (sample,) = FEW.releases(4.0)
    (message,) = replace(FEW, clipping="message").releases(4.0)
    assert sample.mu == pytest.approx(2 * np.sqrt(5) / 4)
    assert message.mu == pytest.approx(2 / 4)


def test_presets_sample_from_critics_that_forget():
    for preset in (SMALL, FULL):
        (release,) = preset.releases(10.0)
        assert release.sampling is SamplingMethod.FIXED_SIZE


@pytest.fixture
def recorded(data, monkeypatch):
    """Return a function that trains and returns the baseline, private rows and their events."""

    def run(settings, epsilon=10.0):
        found = []

        def recording(rows_BP, extra, event, noise):
            found.append((rows_BP.copy(), event))
            return privatize(rows_BP, extra, event, noise)

        monkeypatch.setattr("fed_gswgan.baselines.centralized_gswgan.privatize", recording)
        baseline = train(*data(), 4, settings, epsilon, DELTA, 0)
        return baseline, [rows for rows, _ in found], [event for _, event in found]

    return run


@pytest.mark.parametrize("settings", [FEW, REMEMBERS])
def test_every_gradient_is_sanitized_with_the_noise_that_is_declared(recorded, settings):
    baseline, rows, events = recorded(settings)
    noise_stddev = 2 * np.sqrt(5) / baseline.releases[0].mu
    assert 9.9 < epsilon_of(baseline.releases, DELTA) <= 10
    assert [len(each) for each in rows] == [5] * 6
    assert [event.noise_stddev for event in events] == pytest.approx([noise_stddev] * 6)
    expected = published_epsilon(settings.event(noise_stddev), 1 / 4, 6, DELTA)
    assert baseline.published_epsilon == pytest.approx(expected)


def test_a_snapshot_forgets_and_a_persistent_critic_does_not(recorded):
    forgets, remembers = recorded(FEW, 1e6)[1], recorded(REMEMBERS, 1e6)[1]
    # The first of the steps is the same; later ones meet critics that were, or were not, changed.
    assert np.array_equal(forgets[0], remembers[0])
    assert not np.array_equal(forgets[-1], remembers[-1])


def test_shards_are_disjoint_and_hold_every_image(data):
    images_NCHW, labels_N = data(10)
    shards = disjoint_shards(images_NCHW, labels_N, 4, np.random.default_rng(0))
    assert [len(shard.labels) for shard in shards] == [3, 3, 2, 2]
    held = {image.tobytes() for shard in shards for image in shard.images}
    assert held == {image.tobytes() for image in images_NCHW.numpy()}
