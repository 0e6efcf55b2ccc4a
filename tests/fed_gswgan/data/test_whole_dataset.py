import gzip
import re

import numpy as np
import pytest
import torch

from fed_gswgan.data.whole_dataset import DATASETS, open_whole_dataset

PARTS = ("train", "t10k")


def write_idx(path, values):
    lengths = np.array(values.shape, dtype=">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + lengths + values.tobytes())


@pytest.fixture
def folder(tmp_path):
    """Three training and two test images, whose first pixel is 51 times their position."""
    for dataset in ("MNIST", "FashionMNIST"):
        raw = tmp_path / dataset / "raw"
        raw.mkdir(parents=True)
        for part, labels in zip(PARTS, ([3, 0, 9], [5, 1]), strict=True):
            pixels = np.zeros((len(labels), 28, 28), dtype=np.uint8)
            pixels[:, 0, 0] = np.arange(len(labels)) * 51
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


def test_all_images_and_labels_go_to_a_device(folder):
    data = open_whole_dataset("mnist", folder)
    moved = data.to(torch.device("meta"))
    tensors = {name: value for name, value in vars(moved).items() if torch.is_tensor(value)}
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert {name: value.shape for name, value in tensors.items()} == {
        name: getattr(data, name).shape
        for name in ("train_images_NCHW", "train_labels_N", "test_images_NCHW", "test_labels_N")
    }
    assert (moved.dataset, moved.class_names) == (data.dataset, data.class_names)


def test_classes_are_named_in_the_order_of_the_labels(folder):
    assert open_whole_dataset("mnist", folder).class_names == tuple("0123456789")
    garments = open_whole_dataset("fashion-mnist", folder).class_names
    assert garments[0] == "T-shirt/top"
    assert garments[9] == "Ankle boot"


def test_without_the_setting_the_environment_names_the_folder(monkeypatch, folder):
    monkeypatch.setenv("FED_GSWGAN_DATA", str(folder))
    assert len(open_whole_dataset("mnist", None).train_labels_N) == 3


def test_no_folder_at_all_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"mnist: no folder .* FED_GSWGAN_DATA must name"):
        open_whole_dataset("mnist", None)


def test_a_missing_file_is_named_with_how_to_get_it(folder):
    (folder / "FashionMNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte: no such file; ") as error:
        open_whole_dataset("fashion-mnist", folder)
    assert "torchvision.datasets.FashionMNIST" in str(error.value)


def test_another_data_set_is_refused_with_those_there_are(folder):
    with pytest.raises(ValueError, match=r"dataset='cifar' must be one of mnist, fashion-mnist"):
        open_whole_dataset("cifar", folder)


def test_images_without_as_many_labels_are_refused(folder):
    write_idx(folder / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(2, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"train-images.*\(3, 1, 28, 28\) and \(2,\)"):
        open_whole_dataset("mnist", folder)


def test_a_label_out_of_range_is_refused_with_the_file(folder):
    write_idx(folder / "MNIST/raw/train-labels-idx1-ubyte", np.array([0, 10, 1], dtype=np.uint8))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: label 10 must be 0\.\.9"):
        open_whole_dataset("mnist", folder)


def test_a_file_still_packed_is_refused(folder):
    path = folder / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(f"{path}: must be an IDX file")):
        open_whole_dataset("mnist", folder)


def test_repr_shows_no_image(folder):
    assert repr(open_whole_dataset("mnist", folder)) == "WholeDataset('mnist')"


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_real_sets_have_their_published_sizes(real_data, dataset):
    data = open_whole_dataset(dataset, None)
    assert data.train_images_NCHW.shape == (60_000, 1, 28, 28)
    assert data.test_images_NCHW.shape == (10_000, 1, 28, 28)
    assert data.train_images_NCHW.min() == 0
    assert data.train_images_NCHW.max() == 1
    assert len(data.train_labels_N.unique()) == 10


def test_real_mnist_has_the_mean_and_deviation_that_networks_normalise_with(real_data):
    images = open_whole_dataset("mnist", None).train_images_NCHW
    assert images.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert images.std().item() == pytest.approx(0.3081, abs=1e-4)
