import numpy as np
import pytest
import torch

from fed_gswgan.evaluation.samplers import read_samples, write_samples


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_what_was_written_is_read_to_half_a_grey_level(tmp_path, shape):
    samples = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    write_samples(tmp_path / "s.npz", samples, torch.arange(5))
    found, labels = read_samples(tmp_path / "s.npz")
    assert found.shape == samples.shape
    assert torch.allclose(found, samples, atol=0.5 / 255 + 1e-6)
    assert labels.equal(torch.arange(5))
    assert (found.dtype, labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"samples": np.zeros((2, 28, 28))}, "must hold samples and labels"),
        ({"samples": np.zeros((2, 784)), "labels": np.zeros(2, int)}, "N, H, W"),
        ({"samples": np.full((2, 28, 28), 1.5), "labels": np.zeros(2, int)}, "lie in"),
        ({"samples": np.full((2, 28, 28), np.nan), "labels": np.zeros(2, int)}, "lie in"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.zeros(3, int)}, "2 whole numbers"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.zeros(2)}, "whole numbers"),
    ],
)
def test_what_is_not_as_described_is_named(tmp_path, arrays, named):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match=named):
        read_samples(tmp_path / "s.npz")


def test_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", samples=np.array([{}, {}], object), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="pickle"):
        read_samples(tmp_path / "s.npz")
