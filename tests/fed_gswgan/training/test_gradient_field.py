import numpy as np
import pytest
import torch

from fed_gswgan.models.registry import initial_weights_from
from fed_gswgan.release_basis import to_release_basis
from fed_gswgan.training.gradient_field import GradientField

SHAPE = (16, 1, 28, 28)
BOUND = 0.1
NOISE = 0.5  # of the combined rows, in units of the bound: beyond any coordinate of a row


def new_field(rounds=20, frequencies=4, bound=BOUND, width=32, seed=0):
    with initial_weights_from(seed):
        return GradientField(3, SHAPE, frequencies, bound, rounds, width)


def optimizer_of(field):
    return torch.optim.Adam(field.parameters(), lr=1e-3, betas=(0.9, 0.99))


def a_round(server_round):
    """Samples, labels, and the gradient without noise: towards an image of the sample's class."""
    randomness = np.random.default_rng(server_round)
    strength = randomness.random((SHAPE[0], 1, 1, 1), dtype=np.float32)
    samples = np.broadcast_to(strength, SHAPE).copy()
    labels = randomness.integers(0, 3, SHAPE[0])
    smooth = np.cos(np.linspace(0, np.pi, 28))
    images = np.stack([np.outer(smooth, np.ones(28)), np.ones((28, 28)), np.outer(smooth, smooth)])
    rows = images[labels][:, None]
    rows = BOUND * rows / np.linalg.norm(rows, axis=(2, 3), keepdims=True)
    return torch.from_numpy(samples), torch.from_numpy(labels), rows


def noisy(rows, server_round, frequencies=4):
    """The rows with noise on each of their lowest frequencies, as pixels."""
    randomness = np.random.default_rng((1, server_round))
    noise = np.zeros(SHAPE)
    noise[:, :, :frequencies, :frequencies] = randomness.standard_normal(
        (16, 1, frequencies, frequencies)
    )
    cosines = to_release_basis(np.eye(28)[:, None, :, None] @ np.ones((1, 1, 1, 28)), 28)
    basis = cosines[:, 0, :, 0].T / np.sqrt(28)  # row f: the cosine of frequency f
    return torch.from_numpy((rows + BOUND * NOISE * (basis.T @ noise @ basis)).astype(np.float32))


def errors(field, server_round):
    """Norms of what is predicted less what is true, in units of the bound, a sample."""
    samples, labels, rows = a_round(server_round)
    off = field.gradient(samples, labels).numpy() - rows
    return np.linalg.norm(off.reshape(16, -1), axis=1) / BOUND


def test_a_field_that_knows_nothing_moves_nothing():
    samples, labels, _ = a_round(0)
    assert not new_field().gradient(samples, labels).any()


def test_what_it_predicts_is_far_nearer_to_the_signal_than_any_release_was():
    field, randomness = new_field(), np.random.default_rng(0)
    optimizer = optimizer_of(field)
    for server_round in range(20):
        samples, labels, rows = a_round(server_round)
        released = noisy(rows, server_round)
        assert np.linalg.norm((released.numpy() - rows).reshape(16, -1), axis=1).min() > BOUND
        field.keep(samples, labels, released)
        field.fit(40, optimizer, randomness)
    assert errors(field, 99).mean() < 0.5  # a field of zeros: 1, a release: 2


def test_in_pixels_it_predicts_pixels():
    field = new_field(frequencies=0)
    samples, labels, rows = a_round(0)
    field.keep(samples, labels, torch.from_numpy(rows.astype(np.float32)))
    assert field.gradient(samples, labels).shape == SHAPE
    assert np.allclose(field.values_NBF[0].numpy(), rows.reshape(16, -1) / BOUND, atol=1e-6)


def test_the_oldest_release_makes_room_for_the_newest():
    field = new_field(rounds=2)
    for server_round in range(3):
        samples, labels, rows = a_round(server_round)
        field.keep(samples, labels, torch.from_numpy(rows.astype(np.float32)))
    assert torch.equal(field.samples_NBCHW[0], a_round(2)[0])
    assert torch.equal(field.samples_NBCHW[1], a_round(1)[0])


def test_it_is_fitted_to_releases_that_are_kept_and_not_to_empty_places():
    """With one release of twenty kept, rows of zeros would pull the prediction towards zero."""
    field, (samples, labels, rows) = new_field(), a_round(0)
    field.keep(samples, labels, torch.from_numpy(rows.astype(np.float32)))
    field.fit(300, optimizer_of(field), np.random.default_rng(0))
    assert errors(field, 0).max() < 0.2


def test_its_state_holds_the_releases_too():
    field, (samples, labels, rows) = new_field(), a_round(0)
    field.keep(samples, labels, torch.from_numpy(rows.astype(np.float32)))
    resumed = new_field(seed=1)
    resumed.load_state_dict(field.state_dict())
    for one in (field, resumed):
        one.fit(3, optimizer_of(one), np.random.default_rng(0))
    assert torch.equal(field.gradient(samples, labels), resumed.gradient(samples, labels))


@pytest.mark.parametrize("bound", [1e-3, 1.0, 100.0])
def test_it_learns_as_well_whatever_the_bound(bound):
    field, (samples, labels, rows) = new_field(bound=bound), a_round(0)
    rows = rows * bound / BOUND
    field.keep(samples, labels, torch.from_numpy(rows.astype(np.float32)))
    field.fit(300, optimizer_of(field), np.random.default_rng(0))
    off = field.gradient(samples, labels).numpy() - rows
    assert np.linalg.norm(off.reshape(16, -1), axis=1).max() < 0.2 * bound
