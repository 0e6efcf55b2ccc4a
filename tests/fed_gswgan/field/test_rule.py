"""The rule for fields of made-up noise."""

from itertools import pairwise

import pytest
import torch

from fed_gswgan.critics.cramer import Field
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.field.rule import AdaptationSettings, resolved, rule


def test_the_less_is_known_the_more_the_pool_is_trusted():
    rules = [
        rule([Field(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), torch.full((3,), deviation))])
        for deviation in (0.02, 0.1, 0.3, 1.0)
    ]
    assert rules[1].precision == pytest.approx(4 / 0.1**2)
    for known, less in pairwise(rules):
        assert known.precision > less.precision
        assert known.strength <= less.strength
        assert known.pool_share <= less.pool_share
    assert (rules[0].style, rules[-1].style) == (False, True)


def test_each_class_is_trusted_by_its_own_precision():
    deviations = torch.tensor([0.02, 0.2, 2.0])
    found = rule([Field(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), deviations)])
    shares = (150 / (4 / deviations**2)) ** 0.6  # of the pool to the fields
    assert found.pool_weights_L / found.field_weights_L == pytest.approx(shares)
    assert torch.maximum(found.pool_weights_L, found.field_weights_L).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("noise", "classes", "expected"),
    [
        (0.03, 10, (1, 4, 24, 400)), (0.01, 10, (4, 7, 64, 400)), (0.001, 10, (8, 7, 64, 900)),
        (0.01, 62, (2, 7, 64, 400)), (0.001, 62, (4, 7, 64, 900)),
    ],
)  # fmt: skip
def test_the_noise_decides_how_much_is_asked(noise, classes, expected):
    found = resolved(AdaptationSettings(prior="strokes"), DataSpec((1, 28, 28), classes), noise)
    keys = ("points", "feature_frequencies", "feature_components", "fit_steps")
    assert tuple(getattr(found, key) for key in keys) == expected
    given = AdaptationSettings(points=5, feature_components=3)  # what is given stays
    found = resolved(given, DataSpec((1, 28, 28), classes), noise)
    assert (found.points, found.feature_components, found.fit_steps) == (5, 3, expected[3])


@pytest.mark.parametrize(
    ("noise", "classes", "points"), [(0.03, 10, 1), (0.01, 10, 4), (0.001, 10, 16), (0.001, 62, 4)]
)
def test_without_a_prior_little_noise_lets_it_ask_at_more_points(noise, classes, points):
    found = resolved(AdaptationSettings(prior="none"), DataSpec((1, 28, 28), classes), noise)
    assert found.points == points
