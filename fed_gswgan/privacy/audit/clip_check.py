"""Whether a clipped gradient is as short as the claim needs, seen under next to no noise."""

import math
from itertools import product

import numpy as np

from fed_gswgan.privacy.audit.release import SanitizeMessages, release
from fed_gswgan.privacy.audit.report import CheckResult
from fed_gswgan.privacy.events import SanitizedGradientEvent

ROWS = 8
NOISE_STDDEV = 2e-9
LARGEST = 1.000001  # times the bound, for float32 and the noise
LENGTHS = (0.0, 1e-40, 0.9, 1.1, 1e2, 1e6, 1e30, math.nan, math.inf)


def clipped_norm(title: str, sanitize_messages: SanitizeMessages, _: float) -> CheckResult:
    """Release extreme gradients and report the longest that came out; no chance is involved."""
    longest, of = 0.0, ""
    for clipping, bound, length in product(("sample", "message"), (0.25, 4.0), LENGTHS):
        event = SanitizedGradientEvent(
            samples=ROWS, clipping=clipping, clipping_bound=bound, noise_stddev=NOISE_STDDEV
        )
        for name, shape in _shapes().items():
            with np.errstate(invalid="ignore"):  # infinity times zero
                gradients = (shape * length * bound).astype(np.float32)
            (values,) = release(sanitize_messages, [gradients], event)
            parts = values.astype(np.float64).reshape(ROWS if clipping == "sample" else 1, -1)
            norm = float(np.linalg.norm(parts, axis=1).max()) / bound
            if norm > longest:
                longest, of = norm, f"{name} of length {length:g}, clipping {clipping}"
    return CheckResult(
        title=title,
        found=f"{longest:.7g} times the bound ({of})",
        rule=f"at most {LARGEST}",
        refuted=longest > LARGEST,
    )


def _shapes() -> dict[str, np.ndarray]:
    """Return eight rows each, in units of the length."""
    first_pixel = np.zeros((ROWS, 1, 4, 4))
    first_pixel[:, 0, 0, 0] = 1
    single = first_pixel.copy()
    single[1:] *= 0.01
    signs = np.where(np.arange(ROWS) % 2, -1.0, 1.0).reshape(ROWS, 1, 1, 1)
    return {
        "equal rows": first_pixel,
        "rows of opposite signs": first_pixel * signs,
        "one long row": single,
        "all pixels": np.ones((ROWS, 1, 4, 4)),
    }
