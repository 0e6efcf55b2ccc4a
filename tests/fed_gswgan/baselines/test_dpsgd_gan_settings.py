from fed_gswgan.baselines.dpsgd_gan_settings import (
    FULL_PAPER_ERA,
    FULL_REVISITED,
    SMALL_PAPER_ERA,
    SMALL_REVISITED,
)


def test_paper_era_presets_read_the_bound_into_the_noise_multiplier():
    for preset in (SMALL_PAPER_ERA, FULL_PAPER_ERA):
        assert preset.noise_multiplier_factor == preset.clipping_bound
    for preset in (SMALL_REVISITED, FULL_REVISITED):
        assert preset.noise_multiplier_factor == 1
