import pytest
import torch

from fed_gswgan.critics.cramer import LEAST_DEVIATION, Field, unit_mean
from fed_gswgan.field.tilt import evidence_of, log_base_of, shared_style, style_of, tilted, uniform

CLASSES, IMAGES, POINTS, FEATURES = 3, 40, 5, 6


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


POOL = drawn(CLASSES, IMAGES, FEATURES)
POOL[:, :10, 0] += 3  # a kind of its own
QUERIES = drawn(CLASSES, POINTS, FEATURES, seed=1)


def field_of_weights(weights_LM, deviation=LEAST_DEVIATION):
    """The field that clients with these weights of the pool's images would make."""
    values = [unit_mean(q, p, w) for q, p, w in zip(QUERIES, POOL, weights_LM, strict=True)]
    return Field(QUERIES, torch.stack(values), torch.full((CLASSES,), deviation))


def heavier(share):
    """Weights of which the first ten images of each class have this share."""
    weights = torch.full((CLASSES, IMAGES), (1 - share) / (IMAGES - 10))
    weights[:, :10] = share / 10
    return weights


def test_weights_that_made_the_field_are_found():
    field = field_of_weights(heavier(0.7), 0.1)
    found = tilted(evidence_of(field, POOL), uniform(CLASSES, IMAGES), strength=1.0).exp()
    assert found.sum(1) == pytest.approx([1.0] * CLASSES)
    assert found[:, :10].sum(1).min() > 0.5  # of 0.7; the base has 0.25


def test_the_more_noise_or_strength_the_nearer_to_the_base():
    base = uniform(CLASSES, IMAGES)
    near = [
        tilted(evidence_of(field_of_weights(heavier(0.7), deviation), POOL), base, strength)
        .exp()[:, :10]
        .sum(1)
        for deviation, strength in ((0.02, 1.0), (0.2, 1.0), (0.2, 20.0), (50.0, 20.0))
    ]
    for nearer, farther in zip(near[1:], near[:-1], strict=True):
        assert (nearer < farther).all()
    assert near[-1] == pytest.approx([0.25] * CLASSES, abs=1e-3)


def test_the_weights_are_the_minimum():
    """Where the slope of the objective is the same for every image, no other weights are better."""
    field = field_of_weights(heavier(0.7), 0.3)
    strength, base = 5.0, uniform(CLASSES, IMAGES)
    log_weights = tilted(evidence_of(field, POOL), base, strength)
    for label in range(CLASSES):
        between = QUERIES[label] - POOL[label][:, None]
        rows = (between / between.norm(dim=2, keepdim=True)).flatten(1)
        miss = (log_weights[label].exp() @ rows - field.values_LPE[label].flatten()) / 0.3**2
        slope = rows @ miss + strength * (log_weights[label] - base[label])
        assert slope.std() < 1e-3


def test_two_releases_say_more_than_one():
    first = field_of_weights(heavier(0.7), 0.3)
    others = drawn(CLASSES, POINTS, FEATURES, seed=2)
    values = [unit_mean(q, p, w) for q, p, w in zip(others, POOL, heavier(0.7), strict=True)]
    second = Field(others, torch.stack(values), first.deviation_L)
    base = uniform(CLASSES, IMAGES)
    one, other = evidence_of(first, POOL), evidence_of(second, POOL)
    shares = [tilted(known, base, 5.0).exp()[:, :10].sum() for known in (one, one.plus(other))]
    assert shares[1] > shares[0]


def test_a_shared_style_reaches_the_class_of_which_nothing_is_known():
    style = drawn(CLASSES, IMAGES, 2, seed=3)
    weights = log_base_of(style, torch.tensor([1.0, 0.0])).exp()
    field = field_of_weights(weights, 0.1)._replace(deviation_L=torch.tensor([0.1, 0.1, 100.0]))
    theta = shared_style(evidence_of(field, POOL), style, torch.zeros(2))
    assert theta[0] > 0.5
    assert abs(theta[1]) < 0.3
    found = log_base_of(style, theta).exp()[2]
    assert (found @ style[2])[0] > style[2].mean(0)[0] + 0.3


def test_style_is_standardised_and_tells_slant_and_size_apart():
    images = torch.zeros(1, 4, 9, 9)
    images[0, 0, 1:8, 4] = 1  # upright
    images[0, 1, range(1, 8), range(1, 8)] = 1  # falls to the right as it goes down
    images[0, 2, range(1, 8), range(7, 0, -1)] = 1  # leans to the right
    images[0, 3, 3:6, 4] = 0.5  # short and light
    style = style_of(images)
    assert style.shape == (1, 4, 12)
    numbers = style[0, :, :6]
    assert numbers.mean(0) == pytest.approx([0.0] * 6, abs=1e-5)
    assert numbers.std(0) == pytest.approx([1.0] * 6, abs=1e-5)
    assert style[0, :, 6:].flatten() == pytest.approx((numbers**2 - 1).flatten())
    assert numbers[1, 4] > numbers[0, 4] > numbers[2, 4]  # slant
    assert numbers[3, 1] < numbers[0, 1]  # height
    assert numbers[3, 3] < numbers[0, 3]  # darkness
