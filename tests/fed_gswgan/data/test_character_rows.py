import numpy as np
import pytest

from fed_gswgan.data.characters import emnist_class_set, invert_paper


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 784)])
def test_white_paper_becomes_zero_and_ink_one(shape):
    pixels = np.ones(shape)
    pixels.reshape(3, -1)[:, 28] = 0
    ink = invert_paper(pixels, "here")
    assert ink.shape == (3, 1, 28, 28)
    assert ink.dtype == np.float32
    assert ink.sum() == 3
    assert (ink[:, 0, 1, 0] == 1).all()


@pytest.mark.parametrize(
    ("pixels", "rule"),
    [
        (np.ones((3, 27, 28)), r"\(3, 27, 28\)"),
        (np.full((1, 784), 255.0), "255.0"),
        (np.full((1, 784), np.nan), "nan"),
        (np.full((1, 784), "0"), "numbers"),
    ],
)
def test_wrong_pixels_are_refused_with_the_origin(pixels, rule):
    with pytest.raises(ValueError, match=f"file:key: .*{rule}"):
        invert_paper(pixels, "file:key")


def test_images_of_other_classes_are_dropped_with_their_labels():
    ink = np.linspace(0, 1, 4, dtype=np.float32)[:, None, None, None] * np.ones((1, 28, 28))
    labels = np.array([3, 10, 7, 61])
    kept = emnist_class_set("digits").keep(ink.astype(np.float32), labels, "here")
    assert kept.labels.tolist() == [3, 7]
    assert kept.images[:, 0, 0, 0] == pytest.approx([0, 2 / 3])


def test_an_image_without_a_label_is_refused():
    with pytest.raises(ValueError, match="here: 2 images need a label each"):
        emnist_class_set("all").keep(np.zeros((2, 1, 28, 28), np.float32), np.array([1]), "here")
