import pytest
import torch

from fed_gswgan.models.pixel_norm import PixelNorm


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4, 6)])
def test_mean_square_over_channels_is_one_at_every_pixel(shape):
    features = 10 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mean_square = PixelNorm()(features).square().mean(dim=1)
    torch.testing.assert_close(mean_square, torch.ones_like(mean_square))


def test_known_value():
    # Mean square of (1, 7) is 25, so the vector is divided by 5.
    torch.testing.assert_close(PixelNorm()(torch.tensor([[1.0, 7.0]])), torch.tensor([[0.2, 1.4]]))


def test_zero_vector_stays_zero_with_a_finite_gradient():
    features = torch.zeros(1, 4, requires_grad=True)
    normalised = PixelNorm()(features)
    normalised.sum().backward()
    assert normalised.eq(0).all()
    assert features.grad.isfinite().all()


def test_has_no_state():
    assert not PixelNorm().state_dict()
