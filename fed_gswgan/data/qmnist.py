"""MNIST's digits with NIST's writers: 539 training writers are clients, the 297 others held out."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_gswgan.data.characters import IMAGE_SHAPE, digit_class_set
from fed_gswgan.data.client_dataset import ClientDataset, Images, LabelledImages
from fed_gswgan.data.files import CACHE_DIR, ENVIRONMENT_VARIABLE, data_root, map_idx, require_file

FILES = tuple(
    f"QMNIST/raw/qmnist-{part}-{kind}"
    for part in ("train", "test")
    for kind in ("images-idx3-ubyte", "labels-idx2-int")
)
WRITER_COLUMN = 2
TEST_DIGITS = 10_000  # MNIST's own; the file goes on with 50,000 that MNIST left out
ADVICE = f"data-dir or {ENVIRONMENT_VARIABLE} must name the folder that holds QMNIST/raw/"

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]  # pixels (N, 28, 28), targets (N, 8)


class QmnistSource:
    """QMNIST by writer; a ``WriterSource``.

    The clients are the writers of MNIST's training digits. The held-out images are MNIST's 10,000
    test digits, by 297 other writers. The minimum is compared with a writer's training digits.

    Args:
        data_dir: holds ``QMNIST/raw``; empty: FED_GSWGAN_DATA does, else it is downloaded to the
            user's cache.
        classes: ``all`` or ``digits``.
        min_images_per_writer: a training writer with fewer is left out.

    Raises:
        FileNotFoundError: a file is missing, or cannot be downloaded.
        ValueError: ``classes`` asks for letters, or no writer has the minimum.
    """

    name = "qmnist"
    unit = "one MNIST writer"
    image_shape = IMAGE_SHAPE
    ink_on_paper = True

    def __init__(self, data_dir: str, classes: str, min_images_per_writer: int) -> None:
        self.class_names = digit_class_set(classes).names
        self._root = _downloaded() if (root := data_root(data_dir)) is None else root
        for file in FILES:
            require_file(self._root / file, ADVICE)
        writers, counts = np.unique(self._train[1][:, WRITER_COLUMN], return_counts=True)
        enough = counts >= min_images_per_writer
        if not enough.any():
            raise ValueError(
                f"min-images-per-writer={min_images_per_writer} leaves no writer of QMNIST; "
                f"the largest has {counts.max()}"
            )
        self.writer_ids = _ids(writers[enough])

    @cached_property
    def held_out_writers(self) -> tuple[str, ...]:
        """The writers of MNIST's test digits, sorted; none of them is a client."""
        return _ids(np.unique(self._test[1][:, WRITER_COLUMN]))

    def shard(self, writer_id: str) -> ClientDataset:
        """Return one writer's training digits.

        Raises:
            ValueError: the writer is held out, below the minimum or unknown.
        """
        if writer_id not in self.writer_ids:
            raise ValueError(f"qmnist: writer {writer_id!r} is not a client's writer")
        pixels, targets = self._train
        rows = targets[:, WRITER_COLUMN] == int(writer_id)
        return ClientDataset((writer_id,), _scaled(pixels[rows]), targets[rows, 0])

    def held_out(self) -> LabelledImages:
        """Return MNIST's 10,000 test digits."""
        pixels, targets = self._test
        return LabelledImages(_scaled(pixels), targets[:, 0], "qmnist, held-out writers")

    @cached_property
    def _train(self) -> Digits:
        return _load(self._root, "train")

    @cached_property
    def _test(self) -> Digits:
        return _load(self._root, "test", TEST_DIGITS)


def _load(root: Path, part: str, limit: int | None = None) -> Digits:
    pixels_path, targets_path = (root / file for file in FILES if f"-{part}-" in file)
    pixels, targets = map_idx(pixels_path)[:limit], map_idx(targets_path)[:limit]
    if pixels.shape[1:] != IMAGE_SHAPE[1:] or targets.shape != (len(pixels), 8) or not len(pixels):
        raise ValueError(
            f"{pixels_path}, {targets_path}: must be images (N, 28, 28) and targets (N, 8), "
            f"not {pixels.shape} and {targets.shape}"
        )
    digit_class_set("all").relabel(targets[:, 0], str(targets_path))
    return pixels, targets.astype(np.int64)


def _downloaded() -> Path:
    root = CACHE_DIR.expanduser()
    if all((root / file).is_file() for file in FILES):
        return root
    from torchvision.datasets import QMNIST  # slow to import, and needed only for the first run

    for what in ("train", "test10k"):
        try:
            QMNIST(root, what=what, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{root / 'QMNIST/raw'}: missing, and the download failed ({error}); {ADVICE}"
            ) from error
    return root


def _ids(writers: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"{writer:04d}" for writer in writers)  # as text in numeric order


def _scaled(pixels: NDArray[np.uint8]) -> Images:
    return pixels.astype(np.float32).reshape(-1, *IMAGE_SHAPE) / np.float32(255)
