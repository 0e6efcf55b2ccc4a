"""Whether two processes draw noise of their own."""

import os
from collections.abc import Callable
from itertools import combinations

import numpy as np

from fed_gswgan.privacy.audit.release import SanitizeMessages, release
from fed_gswgan.privacy.audit.report import CheckResult
from fed_gswgan.privacy.events import SanitizedGradientEvent


def processes(title: str, sanitize_messages: SanitizeMessages, _: float) -> CheckResult:
    """Release a zero gradient from two forks of this process and from itself, and compare.

    Noise that comes twice is a seed's, or from a buffer that was copied. Where a system cannot
    fork, two releases of this process are compared.
    """
    zeros = [np.zeros((1, 1, 28, 28), np.float32)]
    event = SanitizedGradientEvent(
        samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=1.0
    )

    def draw() -> bytes:
        return release(sanitize_messages, zeros, event)[0].tobytes()

    before = [_in_fork(draw), _in_fork(draw)] if hasattr(os, "fork") else [draw()]
    drawn = [*before, draw()]
    equal = sum(first == second for first, second in combinations(drawn, 2))
    return CheckResult(
        title=title,
        found=f"{equal} equal pairs among {len(drawn)} releases",
        rule="none",
        refuted=equal > 0,
    )


def _in_fork(draw: Callable[[], bytes]) -> bytes:
    """Return what ``draw`` returns in a copy of this process; fits into a pipe's buffer."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sink, draw())
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source, "rb") as answer:
        drawn = answer.read()
    os.waitpid(child, 0)
    return drawn
