"""Neighbouring worlds in which a defect of a sanitizer shows most."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent

# Takes the gradients of one reply or of several in a row, all under one event; returns the values
# that would leave the client, an array for each.
SanitizeMessages = Callable[[Sequence[np.ndarray], SanitizedGradientEvent], Sequence[Any]]


class FaultyRelease(Exception):
    """No answer, or one whose form says something about the data."""


def release(
    sanitize_messages: SanitizeMessages,
    messages: Sequence[np.ndarray],
    event: SanitizedGradientEvent,
) -> Sequence[np.ndarray]:
    """Sanitize copies of ``messages``, float32 of shape (B, C, H, W).

    Raises:
        FaultyRelease: an exception, another shape or number of answers, values that are not
            float32 or not finite. Each tells something of the data, whatever the values are.
    """
    try:
        released = sanitize_messages([message.copy() for message in messages], event)
    except Exception as error:
        raise FaultyRelease(f"{type(error).__name__}: {error}") from error
    if len(released) != len(messages):
        raise FaultyRelease(f"{len(released)} answers to {len(messages)} messages")
    for message, values in zip(messages, released, strict=True):
        if not isinstance(values, np.ndarray) or values.dtype != np.float32:
            raise FaultyRelease(f"{getattr(values, 'dtype', type(values))} instead of float32")
        if values.shape != message.shape:
            raise FaultyRelease(f"shape {values.shape} instead of {message.shape}")
        if not np.isfinite(values).all():
            raise FaultyRelease("values that are not finite")
    return released


BOUND = 4.0  # not 1: a sanitizer that forgets the bound somewhere shall be found
IMAGE = (1, 4, 4)
HUGE = 1e6  # times the bound
SUBNORMAL = 1e-40  # times the bound, in float32


def aligned(rows: int, length: float) -> np.ndarray:
    """Return equal rows along the first pixel; ``length`` in units of the bound, here and below."""
    return _rows(rows, lambda row: length)


def alternating_rows(rows: int, length: float) -> np.ndarray:
    """Return rows along the first pixel of which every second one is negative."""
    return _rows(rows, lambda row: length * (-1) ** row)


def single(rows: int, length: float, others: float = 0.0) -> np.ndarray:
    """Return a first row of ``length``, the rest of length ``others``, along the first pixel."""
    return _rows(rows, lambda row: others if row else length)


def alternating_pixels(rows: int, length: float) -> np.ndarray:
    """Return equal rows whose pixels are + and - ``length``."""
    gradients = np.full((rows, *IMAGE), BOUND * length, np.float32)
    gradients[..., ::2] *= -1
    return gradients


def _rows(rows: int, length: Callable[[int], float]) -> np.ndarray:
    gradients = np.zeros((rows, *IMAGE), np.float32)
    gradients[:, 0, 0, 0] = [BOUND * length(row) for row in range(rows)]
    return gradients


Score = Callable[[Sequence[np.ndarray]], float]


def projection(
    present: Sequence[np.ndarray], changed: Sequence[np.ndarray], event: SanitizedGradientEvent
) -> Score:
    """Return the score along what a correct sanitizer would change; the best against a Gaussian.

    Source: the likelihood ratio of two Gaussians of one covariance grows along the difference of
        their means (Neyman and Pearson).
    """
    difference = _clipped(present, event) - _clipped(changed, event)
    direction = difference / np.linalg.norm(difference)
    return lambda released: float(direction @ _joined(released))


def unreachable_by_single_precision(event: SanitizedGradientEvent) -> Score:
    """Return the score that counts values which float32 noise on a zero gradient cannot take.

    A float32 normal times a float32 deviation skips some numbers; one that is skipped proves that
    something was added to the noise.

    Source: Mironov, On significance of the least significant bits for differential privacy
        (CCS 2012), for Laplace noise.
    """
    stddev = np.float32(event.noise_stddev * event.clipping_bound)

    def score(released: Sequence[np.ndarray]) -> float:
        values = np.concatenate([message.ravel() for message in released])
        nearest = (values.astype(np.float64) / float(stddev)).astype(np.float32)
        below, above = (np.nextafter(nearest, np.float32(side)) for side in (-np.inf, np.inf))
        reached = [stddev * normal == values for normal in (below, nearest, above)]
        return float(np.count_nonzero(~np.any(reached, axis=0)))

    return score


def _clipped(messages: Sequence[np.ndarray], event: SanitizedGradientEvent) -> np.ndarray:
    """Return what a correct sanitizer adds noise to; written apart from the one under audit."""
    clipped = []
    for message in messages:
        rows = message.reshape(len(message), -1).astype(np.float64)
        rows[~np.isfinite(rows).all(axis=1)] = 0
        parts = rows if event.clipping == "sample" else rows.reshape(1, -1)
        norms = np.linalg.norm(parts, axis=1, keepdims=True)
        clipped.append(parts / np.maximum(norms / event.clipping_bound, 1))
    return _joined(clipped)


def _joined(messages: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([message.ravel() for message in messages]).astype(np.float64)


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
