"""Simulated writers who draw characters: a public federation of any size.

Settings are chosen on it, since it holds no person's images. Each writer has a style. The letter
forms that most of them use, tremor, gaps, the thickest pens and the strongest deformations are in
no prior, so that settings are not chosen for a prior that knows its writers.
"""

import numpy as np

from fed_gswgan.data.characters import IMAGE_SHAPE, emnist_class_set
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.held_out import SplitSource
from fed_gswgan.data.strokes import Pen, draw, forms_of
from fed_gswgan.seeding import SeedStream

MEDIAN_IMAGES, IMAGES_SPREAD = 14.0, 0.7  # of a writer, and of their logarithm
WITHHELD_SHARE = 2 / 3  # of a writer's usual forms are in no prior
HABIT = 0.85  # how often a writer draws a character in the usual form
# Spread of a writer's drawings around the writer's style, for properties of a ``Pen``.
OWN_SPREAD = {
    "height": 0.08, "rotation": 0.05, "shear": 0.05, "log_aspect": 0.05, "width": 0.06,
    "right": 0.4, "down": 0.4,
}  # fmt: skip
RELATIVE = ("height", "width")


def open_drawn(writers: int, classes: str, min_images_per_writer: int) -> SplitSource:
    """Return a ``WriterSource`` of so many simulated writers, about a tenth of them held out.

    Args:
        writers: more of them leave the first ones as they are.
        classes: ``digits``, ``letters``, ``all`` or ``merged``.
        min_images_per_writer: writers with fewer are left out.

    Raises:
        ValueError: fewer than two writers have the minimum.
    """
    names = emnist_class_set(classes).names
    ids = [f"writer-{number:06d}" for number in range(writers)]
    return SplitSource(
        name="drawn",
        unit="one simulated writer",
        image_shape=IMAGE_SHAPE,
        class_names=names,
        image_counts={writer: _count(writer) for writer in ids},
        min_images_per_writer=min_images_per_writer,
        read=lambda writer: _drawings(writer, names),
    )


def _count(writer: str) -> int:
    spread = _randomness(writer, "count").standard_normal() * IMAGES_SPREAD
    return max(round(MEDIAN_IMAGES * float(np.exp(spread))), 1)


def _drawings(writer: str, names: tuple[str, ...]) -> LabelledImages:
    """Draw all images of a writer."""
    count, randomness = _count(writer), _randomness(writer, "style")
    pen, usual = _style(count, randomness), randomness.random(len(names))
    randomness = _randomness(writer, "drawings")
    labels = randomness.integers(len(names), size=count)
    forms = []
    for label in labels:
        place = usual[label] if randomness.random() < HABIT else randomness.random()
        forms.append(_form(names[label], place))
    for name, spread in OWN_SPREAD.items():
        around = spread * randomness.standard_normal(count)
        values = getattr(pen, name)
        pen = pen._replace(
            **{name: values * np.exp(around) if name in RELATIVE else values + around}
        )
    images = draw([names[label] for label in labels], forms, pen, randomness)
    return LabelledImages(images, labels.astype(np.int64), f"drawn, {writer}")


def _form(character: str, place: float) -> int:
    """Return the form at a place in [0, 1): first come those that no prior has."""
    withheld, known = forms_of(character, withheld=True), forms_of(character)
    share = WITHHELD_SHARE if withheld else 0.0
    if place < share:
        return withheld[int(place / share * len(withheld))]
    return known[int((place - share) / (1 - share) * len(known))]


def _style(count: int, randomness: np.random.Generator) -> Pen:
    """Return a writer's style, the same for each of ``count`` drawings."""
    style = dict(
        height=10.3 * np.exp(randomness.normal(0, 0.18)),
        rotation=randomness.normal(0, 0.08),
        shear=randomness.normal(-0.25, 0.3),
        log_aspect=randomness.normal(0, 0.2),
        wobble=randomness.uniform(0.06, 0.14),
        width=1.3 * np.exp(randomness.normal(0, 0.4)),
        edge=randomness.uniform(0.9, 1.8),
        rounding=float(randomness.integers(2)),
        tremor=randomness.uniform(0.005, 0.03) if randomness.random() < 1 / 3 else 0.0,
        gap=randomness.uniform(0.02, 0.1) if randomness.random() < 1 / 6 else 0.0,
        right=randomness.normal(0, 0.3),
        down=randomness.normal(0, 0.3),
    )
    return Pen(**{name: np.full(count, value) for name, value in style.items()})


def _randomness(writer: str, purpose: str) -> np.random.Generator:
    return SeedStream(0).generator(f"drawn {purpose}", client_id=writer)
