import h5py
import numpy as np
import pytest
from PIL import Image

from fed_gswgan.data.image_folder import read_own_images

NAMES = ("a", "b", "c")
INK = np.zeros((6, 28, 28), np.uint8)
INK[:, 10:20, 10:20] = 255
INK[3, 12, 12] = 51
LABELS = np.array([0, 1, 2, 0, 1, 2])


def as_shares(shape):
    return INK.reshape(shape).astype(np.float32) / np.float32(255)


def npz(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


def hdf5(path, suffix=".h5", **arrays):
    with h5py.File(path / f"own{suffix}", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path / f"own{suffix}"


def png_folder(path, names="aabbcc"):
    for number, name in enumerate(names):
        (path / "own" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - INK[number]).save(path / "own" / name / f"{number}.png")
    return path / "own"


@pytest.mark.parametrize("write", [npz, hdf5])
@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 1, 28, 28), (6, 784)])
@pytest.mark.parametrize("kind", ["u1", "f4", "f8"])
def test_a_file_of_bytes_or_shares_in_any_usual_shape_is_read(tmp_path, write, shape, kind):
    pixels = INK.reshape(shape) if kind == "u1" else as_shares(shape).astype(kind)
    found = read_own_images(write(tmp_path, images=pixels, labels=LABELS.astype("u1")), NAMES)
    assert (found.images.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert found.images.tobytes() == as_shares((6, 1, 28, 28)).tobytes()
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 784), (6, 1, 28, 28)])
def test_pixels_of_hdf5_are_paper_and_not_ink(tmp_path, suffix, shape):
    found = read_own_images(
        hdf5(tmp_path, suffix, pixels=1 - as_shares(shape), labels=LABELS), NAMES
    )
    assert found.images == pytest.approx(as_shares((6, 1, 28, 28)), abs=1e-6)


def test_a_folder_of_classes_is_read_and_its_labels_are_the_runs(tmp_path):
    found = read_own_images(png_folder(tmp_path, "ccaacc"), ("a", "b", "c"))
    assert found.labels.tolist() == [0, 0, 2, 2, 2, 2]
    assert found.images.max() == 1
    assert found.images[..., :9, :].max() == 0


WRONG = {
    "labels is missing": lambda p: npz(p, images=INK),
    "images is missing": lambda p: npz(p, pixels=INK, labels=LABELS),
    "must hold images and labels; images is missing": lambda p: hdf5(p, labels=LABELS),
    "must be .N, 28, 28.": lambda p: npz(p, images=INK[:, :14], labels=LABELS),
    "must be bytes or numbers in": lambda p: npz(p, images=INK.astype("i8"), labels=LABELS),
    "pixels must lie in .0, 1.": lambda p: npz(p, images=INK.astype("f4"), labels=LABELS),
    "labels must be whole numbers": lambda p: npz(p, images=INK, labels=LABELS.astype("f4")),
    "labels .N,., not": lambda p: npz(p, images=INK, labels=LABELS[:5]),
    "no image": lambda p: npz(p, images=INK[:0], labels=LABELS[:0]),
    "label 3 must be 0 .. 2": lambda p: npz(p, images=INK, labels=LABELS + 1),
    "label -1 must be": lambda p: npz(p, images=INK, labels=LABELS - 1),
    "paper must be 0 and ink 1": lambda p: npz(p, images=255 - INK, labels=LABELS),
    "paper must be 0 and": lambda p: hdf5(p, pixels=as_shares((6, 784)), labels=LABELS),
    "pixels: pixels must lie in": lambda p: hdf5(p, pixels=INK, labels=LABELS),
    "must be an NPZ file of numbers": lambda p: npz(p, images=np.array([{}]), labels=LABELS),
    "must be named as one of the classes": lambda p: png_folder(p, "aabbcd"),
    "must be a folder of CLASS": lambda p: png_folder(p) / "a" / "0.png",
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_not_as_described_is_refused_with_the_rule(tmp_path, said):
    with pytest.raises(ValueError, match=said) as refused:
        read_own_images(WRONG[said](tmp_path), NAMES)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("name", ["own.npz", "own.h5", "own.hdf5"])
def test_a_file_of_something_else_is_refused_and_a_missing_one_is_missing(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        read_own_images(tmp_path / name, NAMES)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"{name}: must be an? "):
        read_own_images(tmp_path / name, NAMES)


def test_a_missing_folder_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_own_images(tmp_path / "nowhere", NAMES)
