import numpy as np
import pytest
from scipy.fft import dctn

from fed_gswgan.basis import release_shape, to_pixels, to_release_basis

ROWS = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)


@pytest.mark.parametrize("frequencies", [1, 8, 28])
def test_coefficients_are_those_of_an_independent_transform(frequencies):
    found = to_release_basis(ROWS, frequencies)
    expected = dctn(ROWS.astype(np.float64), axes=(2, 3), norm="ortho")
    assert found.shape == release_shape(ROWS.shape, frequencies)
    assert np.allclose(found, expected[:, :, :frequencies, :frequencies], atol=1e-12)


@pytest.mark.parametrize("frequencies", [1, 8, 27, 28])
def test_no_row_becomes_longer_and_with_all_frequencies_none_changes_length(frequencies):
    before = np.linalg.norm(ROWS.reshape(3, -1).astype(np.float64), axis=1)
    after = np.linalg.norm(to_release_basis(ROWS, frequencies).reshape(3, -1), axis=1)
    assert (after <= before * (1 + 1e-12)).all()
    assert np.allclose(after, before) == (frequencies == 28)


def test_pixels_of_all_frequencies_are_the_row_itself():
    assert np.allclose(to_pixels(to_release_basis(ROWS, 28), 28, 28), ROWS, atol=1e-6)


def test_going_back_and_forth_changes_coefficients_no_more():
    values = to_release_basis(ROWS, 8)
    assert np.allclose(to_release_basis(to_pixels(values, 28, 8), 8), values, atol=1e-6)


def test_no_frequencies_means_pixels_as_they_are():
    assert release_shape((3, 1, 28, 28), 0) == (3, 1, 28, 28)
    assert to_release_basis(ROWS, 0) is ROWS
    assert to_pixels(ROWS, 28, 0) is ROWS


def test_a_row_that_is_not_finite_stays_so_and_spoils_no_other():
    rows = ROWS.copy()
    rows[1, 0, 3, 4] = np.inf
    found = to_release_basis(rows, 8)
    assert not np.isfinite(found[1]).all()
    assert np.allclose(found[[0, 2]], to_release_basis(ROWS, 8)[[0, 2]])


@pytest.mark.parametrize(("shape", "frequencies"), [((3, 1, 28, 28), 29), ((3, 1, 28, 32), 8)])
def test_frequencies_that_the_images_do_not_have_are_refused(shape, frequencies):
    with pytest.raises(ValueError, match=f"dct-frequencies={frequencies} must be <= 28"):
        release_shape(shape, frequencies)
