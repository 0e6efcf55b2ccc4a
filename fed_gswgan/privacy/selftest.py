"""Whether clipping and noise work on this machine, tried before anything is released.

A library that is broken, replaced or built for another processor is found here and not by whoever
reads the replies. The full audit is ``fed-gswgan privacy audit``.
"""

import math
import secrets

import numpy as np

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.noise_source import NoiseSource
from fed_gswgan.privacy.refusals import RngUnavailable, SanitizerSelftestFailed
from fed_gswgan.privacy.sanitizer import sanitize

# Standard errors: a sound sanitizer fails once in a thousand million tries.
TOLERANCE = 6.0
ROWS = (0.5, 1e30, np.inf, np.nan, 0.0)  # an entry of each row; the clipped norms are below
CLIPPED_NORMS = (0.5, 1.0, 0.0, 0.0, 0.0)


def require_randomness() -> None:
    """Make sure that the operating system gives random bytes.

    Raises:
        RngUnavailable: it does not.
    """
    try:
        first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    except (OSError, NotImplementedError) as error:
        raise RngUnavailable(f"the operating system gives no random bytes: {error}") from error
    if first == second:
        raise RngUnavailable("the operating system gave the same random bytes twice")


def selftest(noise_source: NoiseSource) -> None:
    """Sanitize known rows and look at what comes out.

    Raises:
        SanitizerSelftestFailed: a row is not clipped, or the noise is missing, repeats or has
            another deviation.
    """
    rows = np.zeros((len(ROWS), 1, 4, 4))
    rows[:, 0, 0, 0] = ROWS
    faint = SanitizedGradientEvent(
        samples=len(ROWS), clipping="sample", clipping_bound=1.0, noise_stddev=1e-6
    )
    released = sanitize(rows, faint, noise_source).values_BCHW.reshape(len(ROWS), -1)
    norms = np.linalg.norm(released.astype(np.float64), axis=1)
    # Written so that a NaN, which compares false with everything, fails too.
    if not (np.abs(norms - CLIPPED_NORMS) < 1e-3).all():
        raise SanitizerSelftestFailed(f"rows {ROWS} were released with norms {norms.tolist()}")

    loud = SanitizedGradientEvent(
        samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=2.0
    )
    zeros = np.zeros((4, 1, 32, 32))
    first, second = (sanitize(zeros, loud, noise_source).values_BCHW for _ in range(2))
    error = 2.0 / math.sqrt(2 * first.size)
    for noise in (first, second, (first - second) / math.sqrt(2)):
        if not abs(float(noise.std()) - 2.0) < TOLERANCE * error:
            raise SanitizerSelftestFailed(
                f"noise of deviation 2 came out with {float(noise.std()):.4g}, or came twice"
            )
