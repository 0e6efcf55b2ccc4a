"""Small images of random ink, and requests, for both shipped algorithms."""

from types import SimpleNamespace

import numpy as np
import pytest

from fed_gswgan.algorithms.base import ClientView
from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.seeding import SeedStream

SPEC = DataSpec((1, 8, 8), 3)


@pytest.fixture
def spec():
    """Return the shape of all images here."""
    return SPEC


@pytest.fixture
def view():
    """Return a function that makes a client with images of labels 0, 0, 1, 2, 1, 2."""

    def make(name="ann", state=None):
        images = np.random.default_rng(5).random((6, *SPEC.image_shape), np.float32)
        dataset = ClientDataset(("ann",), images, np.array([0, 0, 1, 2, 1, 2]))
        return ClientView(name, ("ann",), lambda: dataset, SeedStream(3), state)

    return make


@pytest.fixture
def asked():
    """Return a function that makes what a client is asked of a server's query."""
    return lambda query, server_round=1: SimpleNamespace(
        server_round=server_round, tensors=query.tensors, scalars=query.scalars
    )


@pytest.fixture
def adam():
    """Return one step of Adam, written out: (weight, gradient, moments, step) -> weight, moments.

    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.
    """

    def step(weight, gradient, moments, number, rate, betas=(0.5, 0.9)):
        first = betas[0] * moments[0] + (1 - betas[0]) * gradient
        second = betas[1] * moments[1] + (1 - betas[1]) * gradient**2
        unbiased = first / (1 - betas[0] ** number), second / (1 - betas[1] ** number)
        return weight - rate * unbiased[0] / (unbiased[1] ** 0.5 + 1e-8), (first, second)

    return step
