import pytest
import torch

from fed_gswgan.data.strokes import forms_of
from fed_gswgan.priors import strokes
from fed_gswgan.priors.strokes import draw_pool
from fed_gswgan.seeding import SeedStream

SEEDS = SeedStream(5)


def test_a_class_has_the_same_drawings_beside_any_others():
    digits, some = draw_pool("0123456789", 6, SEEDS), draw_pool("73", 6, SEEDS)
    assert digits.shape == (10, 6, 28, 28)
    assert torch.equal(some, digits[[7, 3]])
    assert not torch.equal(draw_pool("7", 6, SeedStream(6)), some[:1])
    assert digits.amax((2, 3)) == pytest.approx(torch.ones(10, 6))


def test_no_withheld_form_is_drawn(monkeypatch):
    drawn = []
    draw = strokes.draw

    def record(characters, forms, *rest):
        drawn.extend(zip(characters, forms, strict=True))
        return draw(characters, forms, *rest)

    monkeypatch.setattr(strokes, "draw", record)
    draw_pool("4x", 50, SEEDS)
    assert {form for character, form in drawn if character == "4"} == set(forms_of("4"))
    assert {form for character, form in drawn if character == "x"} == set(forms_of("x"))
