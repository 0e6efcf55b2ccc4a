"""Pairs of neighbouring worlds in which a defect of a sanitizer shows most.

Each pair gives the noise of the paper's multiplier, 1.07 times the sensitivity, to the reply as a
whole, so that mu of one reply is 0.93. Under a weaker claim, such as 5.3 at B = 32 and the
paper's noise on a row, noise that rows share or a clip by the mean norm would stay within it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fed_gswgan.privacy.audit.canaries import (
    BOUND,
    HUGE,
    SUBNORMAL,
    aligned,
    alternating_pixels,
    alternating_rows,
    single,
)
from fed_gswgan.privacy.audit.scores import Score, projection, unreachable_by_single_precision
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.neighboring import NeighboringRelation

MULTIPLIER = 1.07
SAMPLES = (1, 32)

Messages = tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstCase:
    """Two neighbouring worlds, and how to tell a release of the one from one of the other.

    Attributes:
        name: of the pair; several cases share it.
        event: what each message is charged.
        relation: how the worlds differ.
        present: gradients of each message, float32, not yet clipped.
        changed: the same from other data (replace-one), or zeros (zero-out).
        score: large where a release looks like one of ``present``.
    """

    name: str
    event: SanitizedGradientEvent
    relation: NeighboringRelation
    present: Messages
    changed: Messages
    score: Score

    @property
    def title(self) -> str:
        """Name and setting."""
        setting = f"{self.relation}, {self.event.clipping}, B={self.event.samples}"
        return f"{self.name} ({setting})"


def worst_cases() -> tuple[WorstCase, ...]:
    """Return every pair at both clippings and at each number of rows in ``SAMPLES``."""
    return tuple(
        case
        for rows in SAMPLES
        for clipping in ("sample", "message")
        for cases in (_replaced, _zeroed)
        for case in cases(rows, clipping)
    )


def _replaced(rows: int, clipping: str) -> Iterator[WorstCase]:
    event = _event(rows, clipping, NeighboringRelation.REPLACE_ONE)

    def case(name: str, present: Messages, changed: Messages) -> WorstCase:
        return _projected(name, event, NeighboringRelation.REPLACE_ONE, present, changed)

    def mirrored(name: str, *present: np.ndarray) -> WorstCase:
        return case(name, present, tuple(-message for message in present))

    yield mirrored("all rows at the bound", aligned(rows, 1))
    for power in (2, 6, 30):
        yield mirrored(f"all rows 10^{power} times the bound", aligned(rows, 10.0**power))
    yield mirrored("a subnormal number in every row", aligned(rows, SUBNORMAL))
    yield mirrored("pixels of alternating signs", alternating_pixels(rows, HUGE))
    yield mirrored("two messages of opposite signs", aligned(rows, 1), aligned(rows, -1))
    for value, written in ((math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "-Inf")):
        yield case(
            f"{written} in one pixel against a huge row",
            (single(rows, value),),
            (single(rows, -HUGE),),
        )
    if rows > 1:
        yield mirrored("one huge row among small ones", single(rows, HUGE, others=1e-3))
        yield mirrored("rows of opposite signs", alternating_rows(rows, 1))
        yield mirrored("huge rows that cancel out", alternating_rows(rows, HUGE))


def _zeroed(rows: int, clipping: str) -> Iterator[WorstCase]:
    event = _event(rows, clipping, NeighboringRelation.ZERO_OUT)

    def case(name: str, *present: np.ndarray, score: Score | None = None) -> WorstCase:
        zeros = tuple(np.zeros_like(message) for message in present)
        return _projected(name, event, NeighboringRelation.ZERO_OUT, present, zeros, score)

    yield case("all rows at the bound against zero", aligned(rows, 1))
    yield case("all rows 10^30 times the bound against zero", aligned(rows, 1e30))
    yield case("two messages against zero", aligned(rows, 1), aligned(rows, -1))
    yield case(
        "which float32 numbers occur",
        alternating_pixels(rows, 0.1),
        score=unreachable_by_single_precision(event),
    )
    if rows > 1:
        yield case("one huge row against zero", single(rows, HUGE))
        yield case("rows of opposite signs against zero", alternating_rows(rows, 1))


def _event(rows: int, clipping: str, relation: NeighboringRelation) -> SanitizedGradientEvent:
    parts = rows if clipping == "sample" else 1
    return SanitizedGradientEvent(
        samples=rows,
        clipping=clipping,
        clipping_bound=BOUND,
        noise_stddev=MULTIPLIER * relation.sensitivity_multiple * math.sqrt(parts),
    )


def _projected(
    name: str,
    event: SanitizedGradientEvent,
    relation: NeighboringRelation,
    present: Messages,
    changed: Messages,
    score: Score | None = None,
) -> WorstCase:
    return WorstCase(
        name=name,
        event=event,
        relation=relation,
        present=present,
        changed=changed,
        score=score or projection(present, changed, event),
    )
