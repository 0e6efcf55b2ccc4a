"""The public basis a release is written in: pixels, or the lowest frequencies of an image.

Handwriting lives in low frequencies, noise lives in all of them. A gradient that is projected on
few, fixed, orthonormal directions before it is clipped spends its clipping bound, and meets the
noise, in those alone. The basis depends on nobody's data, so what a release costs stays the same.

Shapes: B batch, C channels, H and W image, F frequencies of one axis.
"""

from functools import lru_cache

import numpy as np


def release_shape(samples_shape: tuple[int, ...], dct_frequencies: int) -> tuple[int, ...]:
    """Return the shape of the reply to samples of this shape; 0 frequencies: the samples' own.

    Raises:
        ValueError: more frequencies than the images have, or images that are not square.
    """
    if dct_frequencies == 0:
        return samples_shape
    height, width = samples_shape[-2:]
    if height != width or dct_frequencies > width:
        raise ValueError(
            f"dct-frequencies={dct_frequencies} must be <= {min(height, width)}, the side of the "
            "images, and 0 where they are not square"
        )
    return (*samples_shape[:-2], dct_frequencies, dct_frequencies)


def to_release_basis(gradients_BCHW: np.ndarray, dct_frequencies: int) -> np.ndarray:
    """Return the coefficients of each row's lowest frequencies, float64 (B, C, F, F).

    The basis is orthonormal: no row becomes longer, and with all frequencies none changes length.

    Args:
        gradients_BCHW: square images; a row that is not finite stays that.
        dct_frequencies: F, of each axis; 0 returns the rows as they are.

    Source: the type-II discrete cosine transform with orthonormal scaling.
    """
    if dct_frequencies == 0:
        return gradients_BCHW
    basis_FW = cosines(gradients_BCHW.shape[-1])[:dct_frequencies]
    with np.errstate(invalid="ignore"):  # infinities of a critic that diverged
        return np.asarray(basis_FW @ gradients_BCHW.astype(np.float64) @ basis_FW.T)


def to_pixels(values_BCFF: np.ndarray, side: int, dct_frequencies: int) -> np.ndarray:
    """Return the images, float32 (B, C, side, side), that have these coefficients and no others."""
    if dct_frequencies == 0:
        return values_BCFF
    basis_FW = cosines(side)[:dct_frequencies]
    return np.asarray(basis_FW.T @ values_BCFF.astype(np.float64) @ basis_FW, dtype=np.float32)


@lru_cache(maxsize=4)
def cosines(side: int) -> np.ndarray:
    """Return the orthonormal matrix whose row f is the cosine of frequency f."""
    frequencies, places = np.arange(side)[:, None], np.arange(side)[None, :]
    rows = np.cos(np.pi / side * (places + 0.5) * frequencies) * np.sqrt(2 / side)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows)
