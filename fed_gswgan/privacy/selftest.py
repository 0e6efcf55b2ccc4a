"""Self-test of clipping and noise on this machine, before anything is released.

It finds a library that is broken, replaced or built for another processor.
The full audit is ``fed-gswgan privacy audit``.
"""

import math
import secrets

import numpy as np

from fed_gswgan.privacy.mechanism import Event, grid_step, privatize
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.privacy.refusals import MechanismSelftestFailed, RngUnavailable

NO_EXTRA = np.empty(0)
# Standard errors: a sound mechanism fails once in a thousand million tries.
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


def selftest(noise: NoiseSource) -> None:
    """Privatize known rows and look at what comes out.

    Raises:
        MechanismSelftestFailed: a row is not clipped, or the noise is missing, repeats or has
            another deviation.
    """
    rows = np.zeros((len(ROWS), 16))
    rows[:, 0] = ROWS
    faint = Event(rows=len(ROWS), numbers=16, clipping_bound=1.0, noise_stddev=1e-6)
    steps = privatize(rows, NO_EXTRA, faint, noise)
    norms = np.linalg.norm(steps.reshape(rows.shape) * grid_step(faint), axis=1)
    # Written so that a NaN, which compares false with everything, fails too.
    if not (np.abs(norms - CLIPPED_NORMS) < 1e-3).all():
        raise MechanismSelftestFailed(f"rows {ROWS} were released with norms {norms.tolist()}")

    loud = Event(rows=4, numbers=1024, clipping_bound=1.0, noise_stddev=2.0)
    zeros = np.zeros((4, 1024))
    first, second = (privatize(zeros, NO_EXTRA, loud, noise) * grid_step(loud) for _ in range(2))
    error = 2.0 / math.sqrt(2 * first.size)
    for drawn in (first, second, (first - second) / math.sqrt(2)):
        if not abs(float(drawn.std()) - 2.0) < TOLERANCE * error:
            raise MechanismSelftestFailed(
                f"noise of deviation 2 came out with {float(drawn.std()):.4g}, or came twice"
            )
