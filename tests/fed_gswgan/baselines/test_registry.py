"""What every method promises, at a size that takes a moment."""

from dataclasses import replace

import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.registry import METHODS, PRESETS
from fed_gswgan.evaluation.samplers import draw_samples

DELTA = 1e-5
TINY = {
    "gs-wgan": {"critics": 4, "steps": 6, "batch_size": 5, "clipping": "sample"},
    "dpsgd-gan": {"batch_size": 8, "discriminator_steps": 6, "generator_batch_size": 4},
    "dpsgd-gan-revisited": {"batch_size": 8, "discriminator_steps": 6, "generator_batch_size": 4},
    "g-pate": {"teachers": 6, "steps": 3, "batch_size": 2, "projection_dim": 4},
    "dp-merf": {"frequencies": 8, "channels": 2},
    "dp-merf-ae": {"frequencies": 8},
}
SOLVED = [name for name, method in METHODS.items() if method.module == "solved"]
ROUNDS = (
    {name: [2] for name in SOLVED}
    | {"prior": []}
    | {"g-pate": [24, 24], "dp-merf": [1], "dp-merf-ae": [4, 1]}
)


def tiny(name):
    settings = METHODS[name].settings("small")
    if name in SOLVED:
        change = {"points": 2, "fit_steps": 2}
        adaptation = settings.adaptation.model_copy(update=change)
        return replace(settings, releases=min(settings.releases, 2), adaptation=adaptation)
    settings = replace(settings, **TINY[name])
    if name == "gs-wgan":
        change = {"critic_width": 8, "critic_steps": 2, "warm_start_steps": 1}
        critic = settings.critic.model_copy(update=change)
        settings = replace(settings, critic=critic)
    if "merf" in name:
        settings = replace(settings, fitting=replace(settings.fitting, steps=3))
    if name == "dp-merf-ae":
        autoencoder = replace(settings.autoencoder, steps=4, batch_size=8)
        settings = replace(settings, autoencoder=autoencoder)
    return settings


@pytest.fixture(params=list(METHODS))
def name(request):
    return request.param


@pytest.fixture
def train(data, name, monkeypatch, small_fits):
    module = METHODS[name].imported()
    calibrate, known = module.noise_for, {}

    def once(releases_at, *target):  # takes seconds, and every training here has the same releases
        if target not in known:
            known[target] = calibrate(releases_at, *target)
        return known[target]

    monkeypatch.setattr(module, "noise_for", once)

    def train(seed=0, count=40, **more):
        return module.train(*data(count), 4, tiny(name), 10.0, DELTA, seed, **more)

    return train


def samples_of(baseline):
    return draw_samples(baseline.sampler, torch.arange(8) % 4, "test", 1)


def test_every_method_has_both_presets():
    for method in METHODS.values():
        small, full = map(method.settings, PRESETS)
        assert type(small) is type(full)
        assert (small != full) == method.private
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def test_a_training_spends_its_epsilon_and_its_seed_decides_the_samples(train, name):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    told = []
    first, second, other = train(1, progress=told.append), train(1), train(2)
    assert torch.equal(torch.rand(3), expected)  # global randomness is left alone
    assert [release.rounds for release in first.releases] == ROUNDS.get(name, [6])
    if METHODS[name].private:
        assert 9.9 < epsilon_of(first.releases, DELTA) <= 10
        assert name == "g-pate" or first.published_epsilon > 0
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert samples_of(first).shape == (8, 1, 28, 28)
    assert torch.equal(samples_of(first), samples_of(second))
    assert torch.equal(samples_of(first), samples_of(other)) == (not METHODS[name].private)
    labels_B = torch.tensor([3, 0, 0])
    assert torch.equal(first.sampler(labels_B, 4), first.sampler(labels_B, 4))
    assert not torch.equal(first.sampler(labels_B, 4), first.sampler(labels_B, 5))


def test_too_few_images_are_refused(train, name):
    if name in ("dp-merf", *SOLVED):
        pytest.skip("takes any number of images")
    with pytest.raises(ValueError, match=r"must be at most the 3 training images$"):
        train(count=3)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("gs-wgan", {"critics": 1}, "critics=1"),
        ("gs-wgan", {"clipping": "none"}, "clipping="),
        ("gs-wgan", {"clipping_bound": 0.0}, "clipping-bound=0.0"),
        ("dpsgd-gan", {"discriminator": "none"}, "discriminator="),
        ("dpsgd-gan", {"batch_size": 0}, "batch-size=0"),
        ("g-pate", {"teachers": 1}, "teachers=1"),
        ("g-pate", {"gradient_bound": 0.0}, "gradient-bound=0.0"),
        ("dp-merf", {"kernel_variances": (0.0,)}, "kernel-variance=0.0"),
        ("dp-merf", {"channels": 3}, "channels=3 must be even"),
        ("dp-merf-ae", {"embedding_noise_ratio": 0.0}, "embedding-noise-ratio=0.0"),
        ("dp-merf-ae", {"frequencies": 0}, "frequencies=0"),
        ("gs-wgan-cramer", {"releases": 0}, "releases=0"),
        ("gs-wgan-cramer", {"asked": "votes"}, "asked="),
    ],
)
def test_a_setting_out_of_range_is_named(name, change, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        replace(tiny(name), **change)
