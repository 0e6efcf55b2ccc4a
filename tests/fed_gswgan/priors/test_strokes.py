import numpy as np
import pytest
import torch

from fed_gswgan.data.strokes import forms_of
from fed_gswgan.priors import strokes
from fed_gswgan.priors.strokes import distorted, draw_pool, train_feature_network
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


def test_distortions_follow_from_their_generator_and_stay_images():
    images = draw_pool("5", 40, SEEDS)[0][:, None]
    first, again, other = (distorted(images, np.random.default_rng(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first.shape, first.dtype) == (images.shape, torch.float32)
    assert not torch.equal(first, other)
    assert (first.min(), first.max() <= 1) == (0, True)
    assert (first - images).abs().mean() > 0.02


def test_a_network_learns_to_read_drawings_that_it_was_not_shown(monkeypatch):
    monkeypatch.setattr(strokes, "BATCH_SIZE", 48)
    pool, shares = draw_pool("017", 60, SEEDS), []
    network = train_feature_network(pool, 8, 40, SEEDS, shares.append)
    assert not network.training
    assert (len(shares), shares[-1]) == (40, 1.0)
    unseen = draw_pool("017", 30, SeedStream(99))
    with torch.no_grad():
        found = network(unseen.flatten(0, 1)[:, None]).argmax(1).view(3, 30)
    assert (found == torch.arange(3)[:, None]).float().mean() > 0.8
    same = train_feature_network(pool, 8, 3, SEEDS).state_dict()
    again = train_feature_network(pool, 8, 3, SEEDS).state_dict()
    assert all(torch.equal(same[name], again[name]) for name in same)
