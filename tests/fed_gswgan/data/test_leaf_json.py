import json

import numpy as np
import pytest

from fed_gswgan.data.emnist import open_leaf_femnist

WRITERS = [f"f{number:04d}_10" for number in range(6)]


def write(path, writers):
    path.parent.mkdir(exist_ok=True)
    content = {
        "users": list(writers),
        "num_samples": [len(x) if isinstance(x, list) else 1 for x, _ in writers.values()],
        "user_data": {writer: {"x": x, "y": y} for writer, (x, y) in writers.items()},
    }
    path.write_text(json.dumps(content))


def paper(count, ink=1):
    return [[0.0] * ink + [1.0] * (784 - ink)] * count


def test_a_writers_images_in_all_files_are_one_shard_with_ink_one(tmp_path):
    write(tmp_path / "train" / "a.json", {w: (paper(2), [0, 61]) for w in WRITERS[:3]})
    write(tmp_path / "train" / "b.json", {w: (paper(2), [0, 61]) for w in WRITERS[3:]})
    write(tmp_path / "test" / "a.json", {w: (paper(1, ink=3), [10]) for w in WRITERS})
    source = open_leaf_femnist(str(tmp_path), "all", 3)
    shard = source.shard(source.writer_ids[0])
    assert shard.labels.tolist() == [0, 61, 10]
    assert shard.images.sum(axis=(1, 2, 3)).tolist() == [1, 1, 3]
    assert shard.images[2, 0, 0, :4].tolist() == [1, 1, 1, 0]


def test_files_of_one_folder_are_read_too(tmp_path):
    write(tmp_path / "all_data_0.json", {w: (paper(1), [1]) for w in WRITERS})
    source = open_leaf_femnist(str(tmp_path), "digits", 1)
    assert sorted(source.writer_ids + source.held_out_writers) == WRITERS
    assert len(source.held_out().labels) == len(source.held_out_writers) == 1


def test_the_minimum_counts_the_chosen_classes(tmp_path):
    write(tmp_path / "a.json", {w: (paper(3), [1, 11, 41]) for w in WRITERS})
    assert open_leaf_femnist(str(tmp_path), "letters", 2).writer_ids
    with pytest.raises(ValueError, match="0 of 6 writers"):
        open_leaf_femnist(str(tmp_path), "digits", 2)


def test_the_same_people_are_held_out_as_from_other_packagings_of_the_set(tmp_path):
    from fed_gswgan.data.held_out import split_writers

    write(tmp_path / "a.json", {w: (paper(1), [1]) for w in WRITERS})
    expected = split_writers(dict.fromkeys(WRITERS, 1), 1, "fed-emnist").held_out
    assert open_leaf_femnist(str(tmp_path), "all", 1).held_out_writers == expected


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [
        (paper(1), [62], r"f0002_10/y: label 62 must be 0\.\.61"),
        (paper(1), [1.5], "f0002_10/y: labels must be whole numbers"),
        ([[1.0] * 783], [1], "f0002_10/x: every image must have 784 numbers"),
        ([1.0], [1], "f0002_10/x: every image must have 784 numbers"),
        ([[255.0] * 784], [1], r"f0002_10/x: pixels must lie in \[0, 1\]"),
        ([["a"] * 784], [1], "f0002_10/x: pixels must be numbers"),
        (paper(2), [1], "f0002_10/y: must be a list of 2 entries"),
        (7, [1], "f0002_10/x: must be a list of 1 entries"),
    ],
)
def test_wrong_content_is_refused_with_file_and_user(tmp_path, x, y, rule):
    write(tmp_path / "a.json", {**{w: (paper(1), [1]) for w in WRITERS}, WRITERS[2]: (x, y)})
    with pytest.raises(ValueError, match=rf"a\.json:user_data/{rule}"):
        read_everything(open_leaf_femnist(str(tmp_path), "all", 1))


def read_everything(source):
    for writer in source.writer_ids:
        source.shard(writer)
    source.held_out()


def test_a_folder_without_files_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LEAF file"):
        open_leaf_femnist(str(tmp_path), "all", 1)


def test_no_folder_is_refused(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    with pytest.raises(ValueError, match="data-dir=''"):
        open_leaf_femnist("", "all", 1)


def test_a_shard_keeps_grey_levels(tmp_path):
    write(tmp_path / "a.json", {w: ([[0.75] * 784], [1]) for w in WRITERS})
    source = open_leaf_femnist(str(tmp_path), "all", 1)
    assert np.unique(source.shard(source.writer_ids[0]).images).tolist() == [0.25]


def leaf(**changes):
    users = {"f1": {"x": paper(1), "y": [7]}, "f2": {"x": paper(2), "y": [1, 2]}}
    return {"users": list(users), "num_samples": [1, 2], "user_data": users, **changes}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "must be a LEAF file"),
        ("[]", "must be a LEAF file"),
        (json.dumps(leaf())[:-20], "must be a LEAF file"),
        ({"users": ["f1"]}, "num_samples"),
        (leaf(users="f1"), "two lists and an object"),
        (leaf(users=["f1", "f3"]), "must name the same users"),
        (leaf(users=["f1", "f1"]), "must name the same users"),
        (leaf(num_samples=[1, 2, 3]), "they have 2, 3 and 2"),
        (leaf(num_samples=[0, 2]), "num_samples of user 'f1' is 0 and must be >= 1"),
        (leaf(user_data={"f1": {"x": paper(1)}, "f2": 1}), "user_data/f1: must be an object"),
    ],
)
def test_another_layout_is_refused_with_the_file_and_the_rule(tmp_path, content, rule):
    (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"a\.json.*{rule}"):
        open_leaf_femnist(str(tmp_path), "all", 1)
