import numpy as np
import pytest
import torch

from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.data.whole_dataset import DATASETS, open_whole_dataset

PARTS = ("train", "t10k")


def write_idx(path, values):
    lengths = np.array(values.shape, dtype=">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes())


@pytest.fixture
def folder(tmp_path):
    """Three training and two test images, whose first pixel is 51 times their position.

    The middle pixel is ink."""
    for dataset in ("MNIST", "FashionMNIST"):
        raw = tmp_path / dataset / "raw"
        raw.mkdir(parents=True)
        for part, labels in zip(PARTS, ([3, 0, 9], [5, 1]), strict=True):
            pixels = np.zeros((len(labels), 28, 28), dtype=np.uint8)
            pixels[:, 0, 0] = np.arange(len(labels)) * 51
            pixels[:, 14, 14] = 255
            write_idx(raw / f"{part}-images-idx3-ubyte", pixels)
            write_idx(raw / f"{part}-labels-idx1-ubyte", np.array(labels, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("dataset", DATASETS)
def test_images_are_bytes_over_255_with_their_labels(folder, dataset):
    data = open_whole_dataset(dataset, folder)
    assert data.train_images_NCHW.shape == (3, 1, 28, 28)
    assert data.train_images_NCHW.dtype == torch.float32
    assert data.train_images_NCHW[:, 0, 0, 0].tolist() == pytest.approx([0, 51 / 255, 102 / 255])
    assert data.train_labels_N.tolist() == [3, 0, 9]
    assert data.train_labels_N.dtype == torch.int64
    assert data.test_images_NCHW.shape == (2, 1, 28, 28)
    assert data.test_labels_N.tolist() == [5, 1]


def test_classes_are_named_in_the_order_of_the_labels(folder):
    assert open_whole_dataset("mnist", folder).class_names == tuple("0123456789")
    garments = open_whole_dataset("fashion-mnist", folder).class_names
    assert garments[0] == "T-shirt/top"
    assert garments[9] == "Ankle boot"


def test_a_missing_file_is_named_with_how_to_get_it(folder):
    (folder / "FashionMNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte: no such file; ") as error:
        open_whole_dataset("fashion-mnist", folder)
    assert "torchvision.datasets.FashionMNIST" in str(error.value)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ([0, 0], r"train-images.*\(3, 1, 28, 28\) and \(2,\)"),
        ([0, 10, 1], r"train-labels-idx1-ubyte: label 10 must be 0 .. 9"),
    ],
)
def test_wrong_labels_are_refused_with_the_file(folder, labels, rule):
    path = folder / "MNIST/raw/train-labels-idx1-ubyte"
    write_idx(path, np.array(labels, dtype=np.uint8))
    with pytest.raises(ValueError, match=rule):
        open_whole_dataset("mnist", folder)


def test_the_folder_comes_from_setting_or_environment(monkeypatch, folder):
    monkeypatch.setenv("FED_GSWGAN_DATA", str(folder))
    data = open_whole_dataset("mnist", None)
    assert data.spec == DataSpec((1, 28, 28), 10, tuple("0123456789"))
    assert repr(data) == "WholeDataset('mnist')"
    monkeypatch.delenv("FED_GSWGAN_DATA")
    with pytest.raises(FileNotFoundError, match=r"mnist: no folder .* FED_GSWGAN_DATA must name"):
        open_whole_dataset("mnist", None)
    with pytest.raises(ValueError, match=r"dataset='cifar' must be one of mnist, fashion-mnist"):
        open_whole_dataset("cifar", folder)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_real_sets_have_their_published_sizes(fed_gswgan_data, dataset):
    data = open_whole_dataset(dataset, None)
    assert data.train_images_NCHW.shape == (60_000, 1, 28, 28)
    assert data.test_images_NCHW.shape == (10_000, 1, 28, 28)
    assert data.train_images_NCHW.min() == 0
    assert data.train_images_NCHW.max() == 1
    assert len(data.train_labels_N.unique()) == 10


def test_real_mnist_has_the_published_mean_and_deviation(fed_gswgan_data):
    images = open_whole_dataset("mnist", None).train_images_NCHW
    assert images.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert images.std().item() == pytest.approx(0.3081, abs=1e-4)
