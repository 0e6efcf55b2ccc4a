import numpy as np
import pytest
import torch

from fed_gswgan.evaluation import classifier as augmentation
from fed_gswgan.evaluation.classifier import deform


def one_pixel_image(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, row, column] = 1
    return image


def test_deformed_images_keep_shape_range_and_dtype():
    images = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    deformed = deform(images, np.random.default_rng(0))
    assert deformed.shape == images.shape
    assert deformed.dtype == images.dtype
    assert deformed.min() >= 0
    assert deformed.max() <= 1 + 1e-6


def test_no_deformation_is_the_identity(monkeypatch):
    for name in ("MAX_SHIFT_PIXELS", "MAX_ROTATION_RADIANS", "MAX_SCALING"):
        monkeypatch.setattr(augmentation, name, 0.0)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(deform(images, np.random.default_rng(0)), images)


def test_a_shift_stays_within_two_pixels_and_reaches_over_one(monkeypatch):
    for name in ("MAX_ROTATION_RADIANS", "MAX_SCALING"):
        monkeypatch.setattr(augmentation, name, 0.0)
    images = one_pixel_image(14, 14).expand(200, 1, 28, 28)
    ink = deform(images, np.random.default_rng(0))[:, 0]
    pixels = torch.arange(28.0)
    down = (ink.sum(dim=2) * pixels).sum(dim=1) - 14
    across = (ink.sum(dim=1) * pixels).sum(dim=1) - 14
    for moved in (down, across):
        assert moved.abs().max() <= 2 + 1e-4
        assert moved.min() < -1
        assert moved.max() > 1


def test_what_moves_in_from_outside_is_paper(monkeypatch):
    monkeypatch.setattr(augmentation, "MAX_SHIFT_PIXELS", 28.0)
    deformed = deform(torch.ones(100, 1, 28, 28), np.random.default_rng(0))
    assert deformed.min() == 0


@pytest.mark.usefixtures("keeps_global_random_state")
def test_the_generator_decides_the_deformation():
    images = one_pixel_image(10, 10).expand(5, 1, 28, 28)
    first = deform(images, np.random.default_rng(1))
    assert torch.equal(first, deform(images, np.random.default_rng(1)))
    assert not torch.equal(first, deform(images, np.random.default_rng(2)))
