import numpy as np
import pytest
import torch

from fed_gswgan.accounting.trust import SamplingMethod
from fed_gswgan.baselines.poisson_batches import noisy_sums, poisson_batch
from fed_gswgan.privacy.mechanism import NeighboringRelation


def test_each_record_is_in_a_batch_by_its_own_coin():
    randomness = np.random.default_rng(0)
    batches = [poisson_batch(30, 0.2, randomness) for _ in range(3000)]
    rates = torch.bincount(torch.cat(batches), minlength=30) / 3000
    sizes = torch.tensor([float(len(batch)) for batch in batches])
    assert rates == pytest.approx(torch.full((30,), 0.2), abs=0.03)
    assert sizes.mean().item() == pytest.approx(6, abs=0.2)
    assert sizes.var().item() == pytest.approx(30 * 0.2 * 0.8, rel=0.1)


def test_a_step_costs_the_bound_over_the_noise_at_the_share_of_a_batch():
    release = noisy_sums("sums", num_images=40, batch_size=8, steps=6, noise_multiplier=2.0)
    assert (release.what, release.rounds, release.mu) == ("sums", 6, 0.5)
    assert release.relation is NeighboringRelation.ZERO_OUT
    assert release.sampling is SamplingMethod.POISSON
    assert release.sampling_probability == 8 / 40


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r"^batch-size=41 must be at most the 40 training images"):
        noisy_sums("sums", num_images=40, batch_size=41, steps=6, noise_multiplier=2.0)
