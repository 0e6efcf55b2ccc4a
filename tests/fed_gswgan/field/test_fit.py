import pytest
import torch

from fed_gswgan.critics.cramer import Field, unit_each, unit_mean
from fed_gswgan.field.fit import field_loss, pool_loss


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def field_of(images_LND, points_LPD):
    values = [unit_mean(q, x) for q, x in zip(points_LPD, images_LND, strict=True)]
    return Field(points_LPD, torch.stack(values), torch.full((len(values),), 0.02))


def test_pool_loss_by_hand():
    """Two samples of one class at 0 and 3, a pool of one image at 5."""
    samples, pool = torch.tensor([[[0.0], [3.0]]]), torch.tensor([[[5.0]]])
    assert pool_loss(samples, pool).tolist() == pytest.approx([2 * (5 + 2) / 2 - 3])


def test_field_loss_by_hand():
    """A point at 0; one sample lies to the right, the other above; the field is (1, 0)."""
    field = Field(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]]), torch.ones(1))
    samples = torch.tensor([[[2.0, 0.0], [0.0, 5.0]]])
    # Directions (-1, 0) and (0, -1); misses (-2, 0) and (-1, -1).
    assert field_loss(samples, [field]).tolist() == pytest.approx([2.0])
    assert field_loss(samples, [field, field]).tolist() == pytest.approx([2.0])


def test_field_loss_is_the_mean_over_all_pairs_of_samples():
    images, points = drawn(2, 5, 4, seed=1), drawn(2, 3, 4, seed=2)
    field = field_of(drawn(2, 9, 4, seed=3), points)
    found = field_loss(images, [field])
    for label in range(2):
        misses_NPE = unit_each(points[label], images[label]) - field.values_LPE[label]
        products = torch.einsum("npe,mpe->nmp", misses_NPE, misses_NPE).mean(2)
        expected = (products.sum() - products.diagonal().sum()) / (5 * 4)
        assert float(found[label]) == pytest.approx(float(expected), abs=1e-5)


def test_field_loss_is_on_average_nothing_for_samples_of_the_same_distribution():
    points = drawn(2, 3, 4, seed=1)
    truth = drawn(2, 20000, 4, seed=2)
    field = field_of(truth, points)
    misses = [field_loss(drawn(2, 8, 4, seed=s), [field]).sum() for s in range(10, 410)]
    losses = torch.stack(misses)
    assert losses.mean().abs() < 4 * losses.std() / 20
    moved = [field_loss(drawn(2, 8, 4, seed=s) + 1, [field]).sum() for s in range(10, 110)]
    assert torch.stack(moved).mean() > 0.5


@pytest.mark.parametrize("kind", ["field", "pool"])
def test_samples_that_follow_the_slope_come_to_the_images(kind):
    images = drawn(1, 400, 3, seed=3) * 0.3 + 2
    field = field_of(images, drawn(1, 6, 3, seed=4) + 1)
    samples = torch.nn.Parameter(drawn(1, 40, 3, seed=5))
    optimizer = torch.optim.Adam([samples], lr=0.05)
    for _ in range(150):
        loss_L = field_loss(samples, [field]) if kind == "field" else pool_loss(samples, images)
        optimizer.zero_grad()
        loss_L.sum().backward()
        optimizer.step()
    assert samples.detach().mean((0, 1)) == pytest.approx(images.mean((0, 1)), abs=0.35)


def test_a_sample_that_lies_on_a_point_has_a_finite_slope():
    points = torch.zeros(1, 1, 2)
    samples = torch.zeros(1, 4, 2, requires_grad=True)
    field = Field(points, torch.tensor([[[1.0, 0.0]]]), torch.ones(1))
    (field_loss(samples, [field]) + pool_loss(samples, points)).sum().backward()
    assert torch.isfinite(samples.grad).all()
