from dataclasses import replace

import pytest

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.baselines.dp_merf_autoencoder_settings import FULL, SMALL

DELTA = 1e-5


def test_the_presets_leave_most_of_the_budget_to_the_autoencoder():
    for settings in (SMALL, FULL):
        training, embedding = settings.releases(60_000, 0.6)
        assert epsilon_of((embedding,), DELTA) < 0.5 * epsilon_of((training,), DELTA)


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
        replace(SMALL, **changed)
