"""The Cramér critic by hand: three clients who hold different classes and numbers of images."""

import math

import numpy as np
import pytest
import torch

from fed_gswgan.critics.cramer import (
    LEAST_DEVIATION,
    client_update,
    field_of,
    scale_weight,
    unit_mean,
)
from fed_gswgan.privacy.mechanism import Event, bound


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_unit_mean_by_hand():
    images = rows((0.0, 0.0), (3.0, 4.0))
    # (3, 4) from the first image: (0.6, 0.8); from itself: nothing.
    found = unit_mean(rows((3.0, 4.0), (0.0, 5.0)), images)
    # (0, 5): (0, 1) from the first, (-3, 1) / sqrt(10) from the second.
    second = [-3 / math.sqrt(10) / 2, (1 + 1 / math.sqrt(10)) / 2]
    assert found.tolist() == [pytest.approx([0.3, 0.4]), pytest.approx(second)]
    weighted = unit_mean(rows((3.0, 4.0)), images, torch.tensor([0.25, 0.75]).double())
    assert weighted[0].tolist() == pytest.approx([0.15, 0.2])


def test_it_is_the_gradient_of_the_mean_distance():
    points, images = torch.randn(3, 5).double(), torch.randn(7, 5).double()
    points.requires_grad_()
    torch.cdist(points, images).mean(1).sum().backward()
    torch.testing.assert_close(unit_mean(points.detach(), images), points.grad)


POINTS = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).double()
PUBLIC = 0.1 * torch.ones_like(POINTS)
# Images by class of each client; nobody holds class 2.
CLIENTS = [{0: 1, 1: 4}, {0: 3}, {0: 2, 1: 1}]


def data_of(client):
    draws = torch.Generator().manual_seed(10 + client)
    labels = torch.tensor([label for label, n in CLIENTS[client].items() for _ in range(n)])
    return torch.randn(len(labels), 4, generator=draws).double() + client, labels


def bounded(features, labels, clipping_bound=1.0):
    """A client's release without noise: brought to the bound, as the guard does."""
    found, scale = client_update(POINTS, PUBLIC, features, labels)
    event = Event(
        rows=6, numbers=4, extra=3, bounded="message", clipping_bound=clipping_bound,
        noise_stddev=1.0,
    )  # fmt: skip
    return bound(found.reshape(6, 4).numpy(), scale.numpy(), event)


@pytest.mark.parametrize("clipping_bound", [1.0, 250.0])
def test_the_field_is_the_holders_mixture_and_not_the_pooled_one(clipping_bound):
    releases = [bounded(*data_of(client), clipping_bound) for client in range(3)]
    assert [np.linalg.norm(r) for r in releases] == pytest.approx([clipping_bound] * 3)
    mean = np.mean(releases, axis=0)
    field = field_of(POINTS, PUBLIC, mean[:24].reshape(6, 4), mean[24:], noise_stddev=0.0)

    own = [{label: unit_mean(POINTS[label], f[y == label]) for label in y.unique().tolist()}
           for f, y in map(data_of, range(3))]  # fmt: skip
    # A client's weight is its scale: 1 over the length of its whole vector.
    scales = [float(r[24] / scale_weight(2)) for r in releases]
    for label, holders in ((0, (0, 1, 2)), (1, (0, 2))):
        weights = np.array([scales[client] for client in holders])
        mixture = sum(
            w * own[client][label]
            for w, client in zip(weights / weights.sum(), holders, strict=True)
        )
        torch.testing.assert_close(field.values_LPE[label].double(), mixture, atol=1e-6, rtol=0)
        everything = [data_of(client) for client in holders]
        pooled = torch.cat([f[y == label] for f, y in everything])
        assert (unit_mean(POINTS[label], pooled) - mixture).abs().max() > 0.01
    torch.testing.assert_close(field.values_LPE[2].double(), PUBLIC[2], atol=1e-6, rtol=0)
    assert field.deviation_L.tolist() == pytest.approx([LEAST_DEVIATION] * 3)


def test_by_hand_clients_of_two_classes_each_have_equal_weight():
    """One point a class, at 0; images lie on rays, so that one ray is one direction.

    Each client's vector has two rows of length 1 and two numbers of scale: all are as long.
    """
    points, public = torch.zeros(3, 1, 2).double(), torch.zeros(3, 1, 2).double()
    clients = [
        ([(1, 0), (2, 0), (3, 0), (0, 5)], [0, 0, 0, 1]),
        ([(0, -1), (3, 4), (6, 8)], [1, 2, 2]),
        ([(0, 7), (-1, 0), (-4, 0)], [0, 2, 2]),
    ]
    event = Event(
        rows=3, numbers=2, extra=3, bounded="message", clipping_bound=1.0, noise_stddev=1.0
    )
    releases = []
    for images, labels in clients:
        found, scale = client_update(points, public, rows(*images), torch.tensor(labels))
        releases.append(bound(found.reshape(3, 2).numpy(), scale.numpy(), event))
    mean = np.mean(releases, axis=0)
    field = field_of(points, public, mean[:6].reshape(3, 2), mean[6:], 0.0)
    # u(0 - y) = -y / |y|. Class 0: (-1, 0) and (0, -1); pooled it were (-3, -1) / 4.
    expected = rows((-0.5, -0.5), (0.0, 0.0), (0.2, -0.4))
    torch.testing.assert_close(field.values_LPE[:, 0].double(), expected, atol=1e-6, rtol=0)


def test_a_client_without_images_answers_with_zeros():
    release = bounded(torch.empty(0, 4).double(), torch.empty(0, dtype=torch.int64))
    assert not release.any()


def test_noise_is_scaled_as_the_values_are_and_a_class_of_noise_alone_says_so():
    mean = np.zeros((6, 4))
    extra = np.array([scale_weight(2) * 0.5, scale_weight(2) * 0.01, -1.0])
    field = field_of(POINTS, PUBLIC, mean, extra, noise_stddev=0.1)
    assert field.deviation_L.tolist() == pytest.approx([0.2, 1.0, 1.0])
    assert torch.isfinite(field.values_LPE).all()
