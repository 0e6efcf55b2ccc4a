import numpy as np
import pytest

from fed_gswgan.data.characters import CHARACTERS
from fed_gswgan.data.strokes import AT_ONCE, Pen, broad_pen, draw, forms_of


def pen(count=1, **changed):
    """A pen that draws a form as it is."""
    plain = dict.fromkeys(Pen._fields, 0.0) | {"height": 14.0, "width": 1.2, "edge": 1.0}
    return Pen(**{name: np.full(count, v) for name, v in (plain | changed).items()})


def drawn(character="L", form=-1, seed=0, **changed):
    form = max(forms_of(character)) if form < 0 else form
    return draw([character], [form], pen(**changed), np.random.default_rng(seed))[0, 0]


def extent(image):
    """Rows and columns, first and last, that hold ink."""
    rows, columns = np.flatnonzero(image.max(1) > 0.5), np.flatnonzero(image.max(0) > 0.5)
    return rows[0], rows[-1], columns[0], columns[-1]


def test_a_drawing_is_an_image_whose_darkest_pixel_is_ink():
    count = AT_ONCE + 3
    randomness = np.random.default_rng(0)
    images = draw(["7"] * count, [0] * count, broad_pen(count, randomness), randomness)
    assert (images.shape, images.dtype) == ((count, 1, 28, 28), np.float32)
    assert images.min() == 0
    assert images.max(axis=(1, 2, 3)) == pytest.approx(1)


def test_a_letter_stands_upright_in_the_middle_in_its_height():
    """An L: a line down at the left and one along the bottom."""
    image = drawn()
    top, bottom, left, right = extent(image)
    assert (top + bottom, left + right) == (27, 27)
    assert bottom - top + 1 == pytest.approx(14 + 1, abs=1)  # the pen's width beside
    assert image[14, left] > 0.5 > image[14, right]
    assert (image[bottom - 1 : bottom + 1, left:right].max(0) > 0.5).all()


def test_each_property_of_a_pen_does_what_it_says():
    plain = drawn()
    assert drawn(height=7.0).sum() < 0.7 * plain.sum()
    assert drawn(width=2.4).sum() > 1.4 * plain.sum()
    assert extent(drawn(right=3.0))[2] == extent(plain)[2] + 3
    assert extent(drawn(down=3.0))[0] == extent(plain)[0] + 3
    assert drawn(gap=0.2).sum() < plain.sum() - 2
    leaning = drawn("1", forms_of("1")[0], shear=-0.5)
    top, bottom, _, _ = extent(leaning)
    assert leaning[top + 1].argmax() > leaning[bottom - 1].argmax()
    turned = drawn("I", rotation=np.pi / 2)
    top, bottom, left, right = extent(turned)
    assert right - left > bottom - top
    for changed in ({"wobble": 0.1}, {"tremor": 0.03}, {"log_aspect": 0.4}, {"edge": 2.0}):
        assert np.abs(drawn(**changed) - plain).max() > 0.1, changed
    assert np.abs(drawn(rounding=1.0) - plain).max() > 0.1


def test_the_generator_decides_the_drawing():
    wobbling = {"wobble": 0.05}
    assert np.array_equal(drawn(seed=1, **wobbling), drawn(seed=1, **wobbling))
    assert not np.array_equal(drawn(seed=1, **wobbling), drawn(seed=2, **wobbling))


def test_a_third_of_the_forms_is_withheld_and_every_character_keeps_some():
    known = {character: set(forms_of(character)) for character in CHARACTERS}
    withheld = {character: set(forms_of(character, withheld=True)) for character in CHARACTERS}
    assert all(len(forms) >= 2 for forms in known.values())
    assert all(withheld.values())
    assert not any(known[character] & withheld[character] for character in CHARACTERS)
    share = sum(map(len, withheld.values())) / sum(len(known[c] | withheld[c]) for c in CHARACTERS)
    assert share == pytest.approx(1 / 3, abs=0.03)


def test_every_form_of_every_character_can_be_drawn():
    chosen = [
        (character, form)
        for character in CHARACTERS
        for withheld in (False, True)
        for form in forms_of(character, withheld)
    ]
    characters, forms = zip(*chosen, strict=True)
    images = draw(characters, forms, pen(len(chosen)), np.random.default_rng(0))
    assert images.sum(axis=(1, 2, 3)).min() > 5
    kinds = zip(characters, images, strict=True)  # an O may look like a 0
    assert len({(character, image.tobytes()) for character, image in kinds}) == len(chosen)
