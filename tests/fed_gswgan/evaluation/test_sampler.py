import pytest
import torch

from fed_gswgan.evaluation.samplers import (
    SAMPLE_BATCH_SIZE,
    draw_samples,
    proportional_labels,
    uniform_labels,
)


def test_samples_come_in_batches_in_the_order_of_the_labels():
    sizes = []

    def sampler(labels, seed):
        sizes.append(len(labels))
        return (labels / 2000).float()[:, None, None, None].expand(-1, 1, 28, 28)

    labels = torch.arange(SAMPLE_BATCH_SIZE + 7)
    samples = draw_samples(sampler, labels, "test", 0)

    assert sizes == [SAMPLE_BATCH_SIZE, 7]
    assert torch.equal(samples[:, 0, 3, 3], labels / 2000)


def test_each_batch_purpose_and_seed_has_a_seed_of_its_own():
    seen = []

    def sampler(labels, seed):
        seen.append(seed)
        return torch.zeros(len(labels), 1, 28, 28)

    labels = torch.zeros(2 * SAMPLE_BATCH_SIZE, dtype=torch.int64)
    for purpose, seed in (("a", 0), ("b", 0), ("a", 1)):
        draw_samples(sampler, labels, purpose, seed)
    assert len(set(seen)) == 6

    draw_samples(sampler, labels, "a", 0)
    assert seen[-2:] == seen[:2]


@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(4, 28, 28),
        torch.zeros(4, 1, 28, 28, dtype=torch.float64),
        torch.full((4, 1, 28, 28), -1.0),
        torch.full((4, 1, 28, 28), torch.nan),
    ],
    ids=["shape", "dtype", "range", "nan"],
)
def test_what_is_no_image_in_the_unit_range_is_refused(samples):
    with pytest.raises(ValueError, match="samples"):
        draw_samples(lambda labels, seed: samples, torch.zeros(4, dtype=torch.int64), "test", 0)


def test_samples_of_another_shape_than_the_images_are_refused():
    def sampler(labels, seed):
        return torch.zeros(len(labels), 3, 32, 32)

    labels = torch.zeros(4, dtype=torch.int64)
    assert draw_samples(sampler, labels, "test", 0, (3, 32, 32)).shape == (4, 3, 32, 32)
    with pytest.raises(ValueError, match=r"4, 3, 32, 32\) must be torch.float32 \(4, 1, 28, 28\)"):
        draw_samples(sampler, labels, "test", 0, (1, 28, 28))


def test_uniform_labels_ask_for_each_class_that_occurs_equally_often():
    real = torch.tensor([5, 5, 5, 2, 9])
    assert uniform_labels(real, 6).tolist() == [2, 5, 9, 2, 5, 9]


@pytest.mark.parametrize("count", [7, 100, 4000])
def test_proportional_labels_are_within_one_of_each_exact_share(count):
    real = torch.tensor([3] * 50 + [0] * 1 + [7] * 33 + [1] * 17)
    asked = proportional_labels(real, count).bincount(minlength=8)
    exact = real.bincount(minlength=8) * count / len(real)
    assert asked.sum() == count
    assert (asked - exact).abs().max() <= 1
