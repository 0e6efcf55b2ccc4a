"""Drawn characters: strokes of a pen, in the format of EMNIST's images, of no person's hand.

Letter forms are lines (``fed_gswgan_data/strokes.json``, with their credit). A drawing chooses a
form, deforms it, and moves a pen along it. Every range below is wide, and none was fitted to
images.

Shapes: N drawings, S points along the strokes of one, D modes of a deformation.

Source of the ranges: the user's guide of NIST Special Database 19: forms were scanned at 11.8
    pixels a millimetre and characters cut out at 128 x 128, so that 28 pixels are 10.8 mm. Hand
    printing 2.5 to 7 mm high is then 6.5 to 18 pixels, a pen of 0.3 to 0.6 mm 0.8 to 1.5.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from fed_gswgan.data.characters import CHARACTERS, IMAGE_SHAPE
from fed_gswgan.data.client_dataset import Images

SIDE = IMAGE_SHAPE[-1]
POINTS = 128
MODES = 4
SMOOTHED_POINTS = 9  # a rounded form's points are means of so many
AT_ONCE = 128  # drawings; more need more memory
FAR = 1e3  # pixels: no ink


class Pen(NamedTuple):
    """How drawings are made, an array (N,) for each property.

    Attributes:
        height: of the longer side, in pixels.
        rotation: radians, clockwise.
        shear: x for each y, y pointing down: negative leans to the right.
        log_aspect: logarithm of width over height, halved.
        wobble: amplitude of a smooth deformation, in heights.
        width: of the line, in pixels.
        edge: over which ink fades to paper, in pixels.
        rounding: 1: corners are rounded; 0: they are not.
        tremor: amplitude of a fast deformation, in heights.
        gap: share of the line, from its middle on, that the pen does not touch.
        right: shift of the drawing, in pixels; and
        down: likewise.
    """

    height: np.ndarray
    rotation: np.ndarray
    shear: np.ndarray
    log_aspect: np.ndarray
    wobble: np.ndarray
    width: np.ndarray
    edge: np.ndarray
    rounding: np.ndarray
    tremor: np.ndarray
    gap: np.ndarray
    right: np.ndarray
    down: np.ndarray


def broad_pen(count: int, randomness: np.random.Generator) -> Pen:
    """Return the settings of ``count`` drawings, each from the whole width of the public ranges.

    Tremor and gaps are no part of them: they are what the simulated writers of the data set
    ``drawn`` have beside these.
    """
    zeros = np.zeros(count)
    return Pen(
        height=randomness.uniform(6.5, 18, count),
        rotation=randomness.normal(0, 0.12, count),
        shear=randomness.normal(-0.15, 0.22, count),
        log_aspect=randomness.normal(0, 0.15, count),
        wobble=np.full(count, 0.045),
        width=randomness.uniform(0.8, 1.5, count),
        edge=randomness.uniform(0.9, 1.4, count),
        rounding=randomness.integers(2, size=count).astype(float),
        tremor=zeros,
        gap=zeros,
        right=zeros,
        down=zeros,
    )


def forms_of(character: str, withheld: bool = False) -> tuple[int, ...]:
    """Return the numbers of a character's forms: those of the prior, or the third withheld from it.

    What is withheld serves simulated writers alone, so that settings which are chosen on them are
    not chosen for a prior that knows all.
    """
    numbers = range(len(_lines()[character]))
    third = CHARACTERS.index(character) % 3
    return tuple(number for number in numbers if (number % 3 == third) is withheld)


def draw(
    characters: Sequence[str],
    forms: Sequence[int],
    pen: Pen,
    randomness: np.random.Generator,
) -> Images:
    """Draw characters.

    Args:
        characters: one of ``CHARACTERS`` for each drawing.
        forms: which form of it, from 0.
        pen: settings of each drawing.
        randomness: of the deformations.

    Returns:
        float32 (N, 1, 28, 28) in [0, 1]; the darkest pixel of each is 1.
    """
    images = np.empty((len(characters), SIDE, SIDE), np.float32)
    for start in range(0, len(characters), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        some = Pen(*(values[part] for values in pen))
        lines = zip(characters[part], forms[part], some.rounding > 0, strict=True)
        points_NS2 = np.stack([_points(*line) for line in lines])
        images[part] = _inked(_moved(points_NS2, some, randomness), some)
    return images[:, None]


def _moved(points_NS2: np.ndarray, pen: Pen, randomness: np.random.Generator) -> np.ndarray:
    """Deform lines of size 1 around 0, and place them on the image, in pixels."""
    count = len(points_NS2)
    waves_ND2 = randomness.normal(0, 2.5, (count, MODES, 2))
    phases_ND = randomness.uniform(0, 2 * np.pi, (count, MODES))
    amplitudes_ND2 = pen.wobble[:, None, None] * randomness.normal(0, 1, (count, MODES, 2))
    angles_NSD = points_NS2 @ waves_ND2.swapaxes(1, 2) + phases_ND[:, None]
    points_NS2 = points_NS2 + np.sin(angles_NSD) @ amplitudes_ND2
    along_S = np.linspace(0, 1, POINTS)
    shaking_NS = along_S * randomness.uniform(30, 60, (count, 1)) + phases_ND[:, :1]
    shaken_NS2 = np.stack([np.sin(shaking_NS), np.cos(shaking_NS)], 2)
    points_NS2 = points_NS2 + pen.tremor[:, None, None] * shaken_NS2

    cosine, sine, aspect = np.cos(pen.rotation), np.sin(pen.rotation), np.exp(pen.log_aspect)
    matrix_N22 = np.empty((count, 2, 2))  # rotation x shear x aspect
    matrix_N22[:, 0, 0], matrix_N22[:, 1, 0] = cosine * aspect, sine * aspect
    matrix_N22[:, 0, 1] = (cosine * pen.shear - sine) / aspect
    matrix_N22[:, 1, 1] = (sine * pen.shear + cosine) / aspect
    points_NS2 = points_NS2 @ matrix_N22.swapaxes(1, 2)

    lowest_N2, highest_N2 = points_NS2.min(1), points_NS2.max(1)
    scale_N = pen.height / np.maximum((highest_N2 - lowest_N2).max(1), 1e-3)
    centred_NS2 = points_NS2 - ((lowest_N2 + highest_N2) / 2)[:, None]
    placed_NS2 = centred_NS2 * scale_N[:, None, None] + SIDE / 2
    placed_NS2 += np.stack([pen.right, pen.down], 1)[:, None]
    missed_NS = np.abs(along_S - 0.5) < pen.gap[:, None] / 2
    return np.asarray(np.where(missed_NS[:, :, None], FAR, placed_NS2))


def _inked(points_NS2: np.ndarray, pen: Pen) -> np.ndarray:
    """Return images (N, 28, 28) of a pen that touches the points."""
    centres = (np.arange(SIDE) + 0.5).astype(np.float32)
    across_NSW, down_NSH = (
        (points_NS2[:, :, axis, None].astype(np.float32) - centres) ** 2 for axis in (0, 1)
    )
    squares_NHW = np.full((len(points_NS2), SIDE, SIDE), FAR**2, np.float32)
    for across_NW, down_NH in zip(across_NSW.swapaxes(0, 1), down_NSH.swapaxes(0, 1), strict=True):
        np.minimum(squares_NHW, down_NH[:, :, None] + across_NW[:, None], out=squares_NHW)
    reach = pen.width[:, None, None] / 2 - np.sqrt(squares_NHW)
    ink_NHW = np.clip(0.5 + reach / pen.edge[:, None, None], 0, 1)
    return np.asarray(ink_NHW / np.maximum(ink_NHW.max((1, 2), keepdims=True), 1e-3))


@lru_cache(maxsize=1024)
def _points(character: str, form: int, rounded: bool) -> np.ndarray:
    """Return points (S, 2) at equal distances along a form, of size 1 around 0."""
    strokes = [np.array(stroke, float) for stroke in _lines()[character][form]]
    steps = [np.linalg.norm(np.diff(stroke, axis=0), axis=1) for stroke in strokes]
    lengths = np.array([max(step.sum(), 1e-3) for step in steps])
    ends = np.rint(np.cumsum(lengths) / lengths.sum() * POINTS).astype(int)
    parts = []
    for stroke, step, count in zip(strokes, steps, np.diff(ends, prepend=0), strict=True):
        places = np.linspace(0, step.sum(), max(count, 1))
        reached = np.concatenate([[0], np.cumsum(step)])
        part = np.stack([np.interp(places, reached, stroke[:, axis]) for axis in (0, 1)], 1)
        if rounded and len(part) > SMOOTHED_POINTS:
            padded = np.pad(part, ((SMOOTHED_POINTS // 2,) * 2, (0, 0)), mode="edge")
            window = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHED_POINTS, axis=0)
            part = window.mean(-1)
        parts.append(part)
    points = np.concatenate(parts)
    points = points[np.linspace(0, len(points) - 1, POINTS).round().astype(int)]
    lowest, highest = points.min(0), points.max(0)
    size = max(float((highest - lowest).max()), 1.0)
    return np.asarray((points - (lowest + highest) / 2) / size)


@lru_cache(maxsize=1)
def _lines() -> dict[str, list[list[list[list[float]]]]]:
    """Return the strokes of each character's forms."""
    found = json.loads((files("fed_gswgan_data") / "strokes.json").read_text())
    characters: dict[str, list[list[list[list[float]]]]] = found["characters"]
    return characters
