"""MNIST and Fashion-MNIST in one place, with their published test images."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fed_gswgan.data.characters import DIGITS
from fed_gswgan.data.check import Check
from fed_gswgan.data.client_dataset import DataSpec, LabelledImages, image_shape_of
from fed_gswgan.data.files import ENVIRONMENT_VARIABLE, data_root, map_idx, require_file
from fed_gswgan.validation import one_of

GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)  # Source: Xiao et al. 2017 (arXiv 1708.07747), table 2

# Each data set's folder, which is also its class in torchvision, and its classes.
_DATASETS = {"mnist": ("MNIST", DIGITS), "fashion-mnist": ("FashionMNIST", GARMENTS)}
DATASETS = tuple(_DATASETS)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class WholeDataset:
    """A data set with its published division into training and test images.

    Attributes:
        dataset: its name.
        train_images_NCHW: float32 (N, 1, 28, 28) in [0, 1]: the file's bytes over 255, so ink 1.
        train_labels_N: int64 (N,), from 0.
        test_images_NCHW: as the training images; nothing is trained or selected on them.
        test_labels_N: as the training labels.
        class_names: in the order of the labels.
    """

    dataset: str
    train_images_NCHW: Tensor
    train_labels_N: Tensor
    test_images_NCHW: Tensor
    test_labels_N: Tensor
    class_names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"WholeDataset({self.dataset!r})"

    @property
    def spec(self) -> DataSpec:
        """Image shape and number of classes."""
        names = tuple(self.class_names)
        return DataSpec(image_shape_of(self.train_images_NCHW), len(names), names)

    def to(self, device: torch.device) -> "WholeDataset":
        """Return the same on a device."""
        return replace(
            self,
            train_images_NCHW=self.train_images_NCHW.to(device),
            train_labels_N=self.train_labels_N.to(device),
            test_images_NCHW=self.test_images_NCHW.to(device),
            test_labels_N=self.test_labels_N.to(device),
        )


def open_whole_dataset(dataset: str, data_dir: Path | None) -> WholeDataset:
    """Read a data set from the four files that torchvision leaves in its ``raw`` folder.

    Args:
        dataset: ``mnist`` or ``fashion-mnist``.
        data_dir: holds ``MNIST/raw`` and ``FashionMNIST/raw``; None: FED_GSWGAN_DATA does.

    Raises:
        ValueError: another data set, or a file that is not as described.
        FileNotFoundError: no folder is named, or a file is missing; says how to get it.
    """
    one_of(DATASETS, dataset=dataset)
    folder, class_names = _DATASETS[dataset]
    root = data_root("" if data_dir is None else str(data_dir))
    advice = (
        f"data-dir or {ENVIRONMENT_VARIABLE} must name the folder that holds {folder}/raw/; "
        f"torchvision.datasets.{folder}(that_folder, download=True) fetches it, in Python"
    )
    if root is None:
        raise FileNotFoundError(f"{dataset}: no folder is named; {advice}")
    check = Check(class_names, ink_on_paper=dataset == "mnist")
    train_images, train_labels = _read(root / folder / "raw", "train", check, advice)
    test_images, test_labels = _read(root / folder / "raw", "t10k", check, advice)
    return WholeDataset(
        dataset=dataset,
        train_images_NCHW=train_images,
        train_labels_N=train_labels,
        test_images_NCHW=test_images,
        test_labels_N=test_labels,
        class_names=class_names,
    )


def _read(folder: Path, part: str, check: Check, advice: str) -> tuple[Tensor, Tensor]:
    images_path = require_file(folder / f"{part}-images-idx3-ubyte", advice)
    labels_path = require_file(folder / f"{part}-labels-idx1-ubyte", advice)
    pixels = map_idx(images_path)
    images = pixels[:, None].astype(np.float32) / np.float32(255)
    labels = map_idx(labels_path).astype(np.int64)
    origin = f"{images_path}, {labels_path}"
    check.add(LabelledImages(images, labels, origin), origin)
    return torch.from_numpy(images), torch.from_numpy(labels)
