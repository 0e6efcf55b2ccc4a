from dataclasses import replace

import pytest

from fed_gswgan.baselines.dp_merf_settings import FULL, SMALL


def test_the_full_preset_has_the_published_sizes():
    assert (FULL.frequencies, FULL.kernel_variances, FULL.latent_dim) == (500, (105.0,), 5)
    assert SMALL.frequencies / len(SMALL.kernel_variances) == FULL.frequencies


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"frequencies": 0}, "frequencies=0 must"),
        ({"kernel_variances": (0.0,)}, "kernel-variance=0.0 must"),
        ({"latent_dim": 0}, "latent-dim=0 must"),
        ({"hidden_width": 1}, "hidden-width=1 must"),
        ({"channels": 3}, "channels=3 must be even"),
    ],
)
def test_nonsense_is_named(changed, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        replace(SMALL, **changed)
