"""Whether the noise has its deviation and owes nothing to other noise.

Each check draws a million values on zero gradients, and fails a sound sanitizer with probability at
most ``false_alarm``.
"""

import math

import numpy as np
from scipy.special import chdtri, ndtri

from fed_gswgan.privacy.audit.release import SanitizeMessages, release
from fed_gswgan.privacy.audit.report import CheckResult
from fed_gswgan.privacy.events import SanitizedGradientEvent

MESSAGES, ROWS, SIDE = 40, 32, 28
EVENT = SanitizedGradientEvent(
    samples=ROWS, clipping="sample", clipping_bound=4.0, noise_stddev=2.14
)


def variance(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Compare the sum of squares with the quantiles of a chi-square, on both sides."""
    noise = _draw(sanitize_messages)
    degrees = noise.size
    # chdtri takes the probability above its result.
    low, high = (float(chdtri(degrees, p)) for p in (1 - false_alarm / 2, false_alarm / 2))
    # Rounding to a grid of 2^-10 of the deviation adds a twelfth of its square.
    high *= 1 + 2**-20 / 12
    found = float(np.square(noise).sum())
    return CheckResult(
        title=title,
        found=f"{found / degrees:.5f} of what is claimed, in {degrees:,} draws",
        rule=f"{low / degrees:.5f} to {high / degrees:.5f}",
        refuted=not low <= found <= high,
    )


def messages(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Correlate messages with each other."""
    noise_MBP = _draw(sanitize_messages)
    return _uncorrelated(title, noise_MBP.reshape(MESSAGES, -1), false_alarm)


def rows(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Correlate the rows of a message with each other."""
    noise_BMP = _draw(sanitize_messages).swapaxes(0, 1)
    return _uncorrelated(title, noise_BMP.reshape(ROWS, -1), false_alarm)


def pixels(title: str, sanitize_messages: SanitizeMessages, false_alarm: float) -> CheckResult:
    """Correlate pixels with those beside, below and across from them."""
    noise_HW = _draw(sanitize_messages).reshape(-1, SIDE, SIDE)
    neighbours = [noise_HW[:, :-1, :-1], noise_HW[:, :-1, 1:], noise_HW[:, 1:, :-1]]
    return _uncorrelated(title, np.stack(neighbours).reshape(3, -1), false_alarm)


def _draw(sanitize_messages: SanitizeMessages) -> np.ndarray:
    """Return the noise in units of its claimed deviation: M messages, B rows, P pixels.

    Every second message is sanitized together with the one before.
    """
    zeros = [np.zeros((ROWS, 1, SIDE, SIDE), np.float32)] * 2
    released = [
        values for _ in range(MESSAGES // 2) for values in release(sanitize_messages, zeros, EVENT)
    ]
    noise = np.array(released, np.float64).reshape(MESSAGES, ROWS, -1)
    return noise / (EVENT.noise_stddev * EVENT.clipping_bound)


def _uncorrelated(title: str, series: np.ndarray, false_alarm: float) -> CheckResult:
    """Compare the largest correlation of two series with what chance allows.

    Source: the inverse hyperbolic tangent of a correlation of n draws is nearly normal, of variance
        1 / (n - 3) (Fisher).
    """
    count, length = series.shape
    pairs = math.comb(count, 2)
    limit = math.tanh(-float(ndtri(false_alarm / (2 * pairs))) / math.sqrt(length - 3))
    with np.errstate(invalid="ignore", divide="ignore"):  # series of no variance
        correlations = np.abs(np.corrcoef(series)[np.triu_indices(count, 1)])
    found = float(np.nan_to_num(correlations, nan=1.0).max())
    return CheckResult(
        title=title,
        found=f"correlation {found:.4f}, the largest of {pairs:,} pairs",
        rule=f"at most {limit:.4f}",
        refuted=found > limit,
    )
