from dataclasses import replace

import numpy as np
import pytest

from fed_gswgan.accounting.trust import SamplingMethod, epsilon_of
from fed_gswgan.baselines.centralized_gswgan_settings import FULL, SMALL

DELTA = 1e-5
FEW = replace(SMALL, critics=4, steps=6, batch_size=5, clipping="sample")


def test_a_critic_that_remembers_gets_no_amplification():
    remembers = replace(FEW, critic=replace(FEW.critic, critic_state="persistent"))
    (forgetful,), (remembering,) = FEW.releases(5.0), remembers.releases(5.0)
    assert forgetful.sampling is SamplingMethod.FIXED_SIZE
    assert remembering.sampling is SamplingMethod.REVEALED
    assert epsilon_of((remembering,), DELTA) > epsilon_of((forgetful,), DELTA)


def test_a_step_costs_what_its_rows_cost_together():
    (sample,) = FEW.releases(4.0)
    (message,) = replace(FEW, clipping="message").releases(4.0)
    assert sample.mu == pytest.approx(2 * np.sqrt(5) / 4)
    assert message.mu == pytest.approx(2 / 4)


@pytest.mark.parametrize(
    "change", [{"critics": 1}, {"steps": 0}, {"clipping": "none"}, {"clipping_bound": 0.0}]
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=f"^{next(iter(change)).replace('_', '-')}="):
        replace(FEW, **change)


def test_presets_sample_from_critics_that_forget():
    for preset in (SMALL, FULL):
        (release,) = preset.releases(10.0)
        assert release.sampling is SamplingMethod.FIXED_SIZE
