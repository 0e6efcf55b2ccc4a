import numpy as np
import pytest
import torch

from fed_gswgan.evaluation.samplers import (
    SAMPLE_BATCH_SIZE,
    draw_samples,
    label_agreement,
    pool_sampler,
    proportional_labels,
    read_samples,
    uniform_labels,
    write_samples,
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


POOL = torch.arange(6, dtype=torch.float32).view(6, 1, 1, 1).expand(6, 1, 28, 28) / 10
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_every_label_gets_a_sample_of_its_own_class():
    asked = torch.tensor([2, 0, 1, 1, 0, 2])
    drawn = pool_sampler(POOL, LABELS)(asked, 3)
    places = (drawn[:, 0, 0, 0] * 10).round().long()
    assert LABELS[places].equal(asked)


def test_a_class_without_samples_is_named():
    with pytest.raises(ValueError, match=r"labels=\[5\]"):
        pool_sampler(POOL, LABELS)(torch.tensor([0, 5]), 0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_what_was_written_is_read_to_half_a_grey_level(tmp_path, shape):
    samples = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    write_samples(tmp_path / "s.npz", samples, torch.arange(5))
    found, labels = read_samples(tmp_path / "s.npz")
    assert found.shape == samples.shape
    assert torch.allclose(found, samples, atol=0.5 / 255 + 1e-6)
    assert labels.equal(torch.arange(5))
    assert (found.dtype, labels.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"samples": np.zeros((2, 28, 28))}, "holds samples and labels, .*labels is missing"),
        ({"samples": np.zeros((2, 784)), "labels": np.zeros(2, int)}, "N, H, W"),
        ({"samples": np.full((2, 28, 28), 1.5), "labels": np.zeros(2, int)}, "lie in"),
        ({"samples": np.full((2, 28, 28), np.nan), "labels": np.zeros(2, int)}, "lie in"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.zeros(3, int)}, "2 whole numbers"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.zeros(2)}, "whole numbers"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.array(["0", "1"])}, "labels are <U1"),
        ({"samples": np.zeros((2, 28, 28)), "labels": np.eye(2, dtype=int)}, r"shape \(2, 2\)"),
        ({"samples": np.zeros((2, 28, 28), "c8"), "labels": np.zeros(2, int)}, "must be numbers"),
        ({"samples": np.zeros((1, 28, 28)), "labels": np.zeros(1, int)}, "samples=1 must be >= 2"),
        ({"samples": np.zeros((0, 28, 28)), "labels": np.zeros(0, int)}, "samples=0 must be >= 2"),
        ({"samples": np.full((2, 28, 28), 255), "labels": np.zeros(2, int)}, "int64 from 255 to"),
    ],
)
def test_what_is_not_as_described_is_named(tmp_path, arrays, named):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match=named):
        read_samples(tmp_path / "s.npz")


def test_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", samples=np.array([{}, {}], object), labels=np.zeros(2, int))
    with pytest.raises(ValueError, match="pickle"):
        read_samples(tmp_path / "s.npz")


@pytest.mark.parametrize("kind", ["text", "nothing", "npy", "cut"])
def test_a_file_that_is_no_npz_is_named(tmp_path, kind):
    path = tmp_path / "s.npz"
    if kind in ("npy", "cut"):
        np.save(tmp_path / "s.npy", np.zeros((2, 28, 28)))
        np.savez(path, samples=np.zeros((2, 28, 28)), labels=np.zeros(2, int))
        path.write_bytes((tmp_path / "s.npy").read_bytes() if kind == "npy" else
                         path.read_bytes()[:-100])  # fmt: skip
    else:
        path.write_text("hello" if kind == "text" else "")
    with pytest.raises(ValueError, match=r"s\.npz: must be an npz file that holds samples"):
        read_samples(path)


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 1, 28, 28), (3, 28, 28, 1)])
@pytest.mark.parametrize("kind", ["u1", "f2", "f4", "f8", "?"])
def test_channels_come_first_last_or_not_at_all_in_any_kind_of_numbers(tmp_path, shape, kind):
    white = np.ones(shape, kind) * (255 if kind == "u1" else 1)
    np.savez(tmp_path / "s.npz", samples=white.astype(kind), labels=np.zeros(3, "u1"))
    found, labels = read_samples(tmp_path / "s.npz")
    assert found.shape == (3, 1, 28, 28)
    assert found.min() == found.max() == 1
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(("turn", "least", "most"), [(0, 0.95, 1.0), (4, 0.0, 0.05)])
def test_label_agreement_is_of_the_class_that_was_asked_for(judge, spots, turn, least, most):
    labels = spots.labels(400)
    shown = (labels + turn) % spots.classes
    assert least <= label_agreement(judge, spots.draw(shown, 7), labels) <= most
