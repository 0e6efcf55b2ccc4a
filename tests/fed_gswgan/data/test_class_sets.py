import numpy as np
import pytest

from fed_gswgan.data.characters import DROPPED, digit_class_set, emnist_class_set, whole_class_set


@pytest.mark.parametrize(
    ("classes", "count"), [("digits", 10), ("letters", 52), ("all", 62), ("merged", 47)]
)
def test_every_new_label_has_exactly_one_name(classes, count):
    class_set = emnist_class_set(classes)
    assert len(class_set.names) == len(set(class_set.names)) == count
    assert set(class_set.new_labels) - {DROPPED} == set(range(count))


def test_labels_follow_digits_then_upper_then_lower_case():
    names = emnist_class_set("all").names
    assert (names[0], names[9], names[10], names[35], names[36], names[61]) == tuple("09AZaz")


@pytest.mark.parametrize(
    ("classes", "character", "name"),
    [
        ("merged", "c", "C"),
        ("merged", "z", "Z"),
        ("merged", "a", "a"),
        ("merged", "7", "7"),
        ("letters", "A", "A"),
        ("letters", "7", None),
        ("digits", "7", "7"),
        ("digits", "z", None),
    ],
)
def test_a_character_gets_the_name_of_its_class(classes, character, name):
    old = emnist_class_set("all").names.index(character)
    class_set = emnist_class_set(classes)
    (new,) = class_set.relabel(np.array([old]), "here")
    assert (None if new == DROPPED else class_set.names[new]) == name


def test_exactly_the_letters_of_bymerge_are_folded():
    kept = [name for name in emnist_class_set("merged").names if name.islower()]
    assert kept == list("abdefghnqrt")


@pytest.mark.parametrize("label", [-1, 62])
def test_a_label_out_of_range_is_refused_with_its_origin(label):
    with pytest.raises(ValueError, match=rf"file:key: label {label} must be 0\.\.61"):
        emnist_class_set("digits").relabel(np.array([0, label]), "file:key")


def test_labels_that_are_not_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        emnist_class_set("all").relabel(np.array([0.5]), "here")


def test_only_kept_images_are_counted():
    assert emnist_class_set("digits").count_kept(np.array([0, 9, 10, 61]), "here") == 2


@pytest.mark.parametrize("classes", ["letters", "merged"])
def test_a_data_set_of_digits_has_no_letters_to_choose(classes):
    with pytest.raises(ValueError, match=f"classes='{classes}' must be one of all, digits"):
        digit_class_set(classes)


def test_all_and_digits_are_the_same_where_there_are_only_digits():
    assert digit_class_set("all") == digit_class_set("digits")


def test_a_whole_class_set_changes_no_label():
    class_set = whole_class_set("all", ("x", "y"), accepted=("all",))
    assert class_set.relabel(np.array([1, 0, 1]), "here").tolist() == [1, 0, 1]
