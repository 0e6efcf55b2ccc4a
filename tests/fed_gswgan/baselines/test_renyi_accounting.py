import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import rdp_privacy_accountant

from fed_gswgan.baselines.renyi_accounting import ORDERS, gaussian_rdp, renyi_epsilon

DELTA = 1e-5


def test_one_gaussian_has_its_closed_form():
    assert gaussian_rdp(2.0) == pytest.approx(np.array(ORDERS) / (2 * 2.0**2))


def test_steps_add_up_as_dp_accounting_adds_them():
    accountant = rdp_privacy_accountant.RdpAccountant(ORDERS)
    sampled = dp_event.PoissonSampledDpEvent(0.2, dp_event.GaussianDpEvent(1.5))
    accountant.compose(sampled, 30)
    accountant.compose(dp_event.GaussianDpEvent(4.0))
    rdp_R = gaussian_rdp(1.5, 0.2, 30) + gaussian_rdp(4.0)
    assert renyi_epsilon(rdp_R, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=0.02)


def test_more_noise_costs_less():
    noisy, noisier = gaussian_rdp(1.0, 0.1, 20), gaussian_rdp(2.0, 0.1, 20)
    assert renyi_epsilon(noisier, DELTA) < renyi_epsilon(noisy, DELTA)
