import numpy as np
import pytest

from fed_gswgan.data.characters import (
    DROPPED,
    digit_class_set,
    emnist_class_set,
    invert_paper,
    whole_class_set,
)


@pytest.mark.parametrize(
    ("classes", "count"), [("digits", 10), ("letters", 52), ("all", 62), ("merged", 47)]
)
def test_every_new_label_has_exactly_one_name(classes, count):
    class_set = emnist_class_set(classes)
    assert len(class_set.names) == len(set(class_set.names)) == count
    assert set(class_set.new_labels) - {DROPPED} == set(range(count))


@pytest.mark.parametrize(
    ("classes", "label", "name"),
    [
        ("all", 0, "0"),
        ("all", 10, "A"),
        ("all", 61, "z"),
        ("merged", 38, "C"),
        ("merged", 36, "a"),
        ("merged", 7, "7"),
        ("letters", 10, "A"),
        ("letters", 7, None),
        ("digits", 7, "7"),
        ("digits", 61, None),
    ],
)
def test_a_label_of_emnist_gets_the_name_of_its_class(classes, label, name):
    class_set = emnist_class_set(classes)
    (new,) = class_set.relabel(np.array([label]), "here")
    assert (None if new == DROPPED else class_set.names[new]) == name


def test_the_letters_of_bymerge_are_merged():
    kept = [name for name in emnist_class_set("merged").names if name.islower()]
    assert kept == list("abdefghnqrt")


def test_images_of_other_classes_are_neither_kept_nor_counted():
    ink = np.linspace(0, 1, 4)[:, None, None, None] * np.ones((1, 28, 28))
    labels, digits = np.array([3, 10, 7, 61]), emnist_class_set("digits")
    kept = digits.keep(ink.astype(np.float32), labels, "here")
    assert kept.labels.tolist() == [3, 7]
    assert kept.images[:, 0, 0, 0] == pytest.approx([0, 2 / 3])
    assert digits.count_kept(labels, "here") == 2


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        ([0, -1], r"label -1 must be 0\.\.61"),
        ([0, 62], r"label 62 must be 0\.\.61"),
        ([0.5, 1], "whole numbers"),
        ([1], "2 images need a label each"),
    ],
)
def test_wrong_labels_are_refused_with_their_origin(labels, rule):
    with pytest.raises(ValueError, match=f"file:key: {rule}|file:key: labels must be {rule}"):
        emnist_class_set("digits").keep(
            np.zeros((2, 1, 28, 28), np.float32), np.array(labels), "file:key"
        )


def test_data_sets_without_letters_change_no_label_and_refuse_a_choice():
    assert digit_class_set("all") == digit_class_set("digits")
    class_set = whole_class_set("all", ("x", "y"), accepted=("all",))
    assert class_set.relabel(np.array([1, 0, 1]), "here").tolist() == [1, 0, 1]
    for classes in ("letters", "merged"):
        with pytest.raises(ValueError, match=f"classes='{classes}' must be one of all, digits"):
            digit_class_set(classes)


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 784)])
def test_white_paper_becomes_zero_and_ink_one(shape):
    pixels = np.ones(shape)
    pixels.reshape(3, -1)[:, 28] = 0
    ink = invert_paper(pixels, "here")
    assert (ink.shape, ink.dtype) == ((3, 1, 28, 28), np.float32)
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
