import pytest
import torch

from fed_gswgan.evaluation.samplers import pool_sampler

POOL = torch.arange(6, dtype=torch.float32).view(6, 1, 1, 1).expand(6, 1, 28, 28) / 10
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_every_label_gets_a_sample_of_its_own_class():
    asked = torch.tensor([2, 0, 1, 1, 0, 2])
    drawn = pool_sampler(POOL, LABELS)(asked, 3)
    places = (drawn[:, 0, 0, 0] * 10).round().long()
    assert LABELS[places].equal(asked)


def test_one_seed_draws_the_same():
    asked = torch.zeros(50, dtype=torch.int64)
    sampler = pool_sampler(POOL, LABELS)
    assert sampler(asked, 0).equal(sampler(asked, 0))
    assert not sampler(asked, 0).equal(sampler(asked, 1))


def test_a_class_without_samples_is_named():
    with pytest.raises(ValueError, match=r"labels=\[5\]"):
        pool_sampler(POOL, LABELS)(torch.tensor([0, 5]), 0)
