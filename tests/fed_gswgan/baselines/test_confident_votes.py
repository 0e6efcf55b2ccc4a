import math

import numpy as np
import torch

from fed_gswgan.baselines.confident_votes import BINS, confident_winners, vote
from fed_gswgan.privacy.noise import SeededNoise


class NoNoise:
    def add_noise(self, values: np.ndarray, stddev: float) -> np.ndarray:
        return np.asarray(values, dtype=np.float64)


def test_another_teacher_moves_counts_by_root_two_and_the_largest_by_one():
    draws = torch.Generator().manual_seed(0)
    coordinates_MBK = torch.randn(9, 3, 4, generator=draws)
    for outlier in (torch.full((3, 4), math.nan), torch.full((3, 4), 1e30), torch.randn(3, 4)):
        changed_MBK = coordinates_MBK.clone()
        changed_MBK[5] = outlier
        before_BKV, after_BKV = vote(coordinates_MBK, 1.0), vote(changed_MBK, 1.0)
        assert (after_BKV.sum(axis=2) == 9).all()
        squared_BK = ((after_BKV - before_BKV) ** 2).sum(axis=2)
        assert set(squared_BK.ravel().tolist()) <= {0, 2}
        assert np.abs(after_BKV.max(axis=2) - before_BKV.max(axis=2)).max() <= 1


def test_votes_go_to_the_bin_of_the_coordinate():
    coordinates_MBK = torch.tensor([-5.0, -0.95, -0.05, 0.05, 0.95, 5.0])[:, None, None]
    counts_BKV = vote(coordinates_MBK, 1.0)
    assert counts_BKV[0, 0].tolist() == [2, 0, 0, 0, 1, 1, 0, 0, 0, 2]


def test_a_winner_needs_half_of_the_teachers():
    counts_BKV = np.zeros((1, 2, BINS), dtype=np.int64)
    counts_BKV[0, 0, [3, 4]] = 5, 5
    counts_BKV[0, 1, [3, 4, 5]] = 4, 3, 3
    winners_BK, enough_BK = confident_winners(counts_BKV, 10, 1.0, 1.0, NoNoise())
    assert winners_BK.tolist() == [[3, 3]]
    assert enough_BK.tolist() == [[True, False]]


def test_noise_is_added_to_every_count_and_to_the_largest():
    counts_BKV = np.zeros((50, 40, BINS), dtype=np.int64)
    counts_BKV[..., 7] = 10
    noise = SeededNoise(np.random.default_rng(0))
    winners_BK, enough_BK = confident_winners(counts_BKV, 20, 100.0, 600.0, noise)
    shares = np.bincount(winners_BK.ravel(), minlength=BINS) / winners_BK.size
    assert (abs(shares - 1 / BINS) < 0.05).all()
    assert 0.45 < enough_BK.mean() < 0.55
