"""Sums over records, beside those of clients with one image each."""

import numpy as np
import pytest
import torch

from fed_gswgan.accounting.trust import epsilon_of
from fed_gswgan.algorithms.mean_embedding import WAVES
from fed_gswgan.baselines import solved
from fed_gswgan.baselines.solved import releases_at, summed_answers
from fed_gswgan.critics.cramer import DIRECTIONS, client_update
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import Event, bound


@pytest.mark.parametrize("statistic", [DIRECTIONS, WAVES])
def test_a_sum_over_records_is_that_of_clients_with_one_image_each(statistic, monkeypatch):
    monkeypatch.setattr(solved, "AT_ONCE", 3)
    generator = torch.Generator().manual_seed(1)
    classes, points, size, numbers = 3, 2, 5, 2 if statistic is WAVES else 5
    points_LPD = torch.randn(classes, points, size, generator=generator)
    public_LPE = 0.1 * torch.randn(classes, points, numbers, generator=generator)
    features_ND = torch.randn(8, size, generator=generator)
    labels_N = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0])  # nobody has a 2
    given = points_LPD, public_LPE
    rows_RE, scale_L = summed_answers(*given, features_ND, labels_N, statistic)
    event = Event(
        rows=6, numbers=numbers, extra=3, bounded="message", clipping_bound=1.0, noise_stddev=1.0
    )
    expected = np.zeros(event.size)
    for place in range(8):
        mine = features_ND[place : place + 1], labels_N[place : place + 1]
        rows_LPE, own_scale_L = client_update(*given, *mine, statistic)
        expected += bound(rows_LPE.flatten(0, 1).numpy(), own_scale_L.numpy(), event)
    assert np.concatenate([rows_RE.ravel(), scale_L]) == pytest.approx(expected, abs=2e-5)
    assert scale_L[2] == 0
    assert not rows_RE[4:].any()


def test_no_record_is_longer_than_the_bound_that_the_noise_is_for():
    points_LPD = torch.randn(1, 4, 30, generator=torch.Generator().manual_seed(2))
    for scale in (1e-6, 1.0, 1e6):
        image_ND = scale * torch.randn(1, 30, generator=torch.Generator().manual_seed(3))
        rows_RE, scale_L = summed_answers(
            points_LPD,
            torch.zeros(1, 4, 30),
            image_ND,
            torch.zeros(1, dtype=torch.int64),
            DIRECTIONS,
        )
        norm = np.sqrt((rows_RE**2).sum() + (scale_L**2).sum())
        assert 1 - 1e-5 < norm <= 1


def test_sums_cost_what_as_many_gaussians_of_sensitivity_two_do():
    releases = releases_at(3)(4.0)
    expected = gaussian_epsilon(np.sqrt(3) * 2 / 4.0, 1e-5)
    assert epsilon_of(releases, 1e-5) == pytest.approx(expected, rel=1e-6)
