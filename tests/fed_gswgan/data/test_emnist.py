import json

import h5py
import numpy as np
import pytest

from fed_gswgan.data.emnist import TEST_FILE, TRAIN_FILE, open_fed_emnist, open_leaf_femnist
from fed_gswgan.data.held_out import split_writers

WRITERS = [f"f{number:04d}_10" for number in range(6)]


def read_everything(source):
    for writer in source.writer_ids:
        source.shard(writer)
    source.held_out()


def write_hdf5(path, writers):
    """Write ``{writer: (pixels, labels)}`` as TensorFlow Federated does."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for writer, (pixels, labels) in writers.items():
            file[f"examples/{writer}/pixels"] = np.asarray(pixels, dtype=np.float32)
            file[f"examples/{writer}/label"] = np.asarray(labels, dtype=np.int32)


def paper(count, ink=1):
    pixels = np.ones((count, 28, 28), dtype=np.float32)
    pixels[:, 0, :ink] = 0
    return pixels


@pytest.fixture
def folder(tmp_path):
    write_hdf5(tmp_path / TRAIN_FILE, {writer: (paper(3), [0, 10, 61]) for writer in WRITERS})
    write_hdf5(tmp_path / TEST_FILE, {writer: (paper(1, ink=2), [5]) for writer in WRITERS[:-1]})
    return tmp_path


def test_a_shard_is_all_of_a_writer_with_ink_one(folder):
    source = open_fed_emnist(str(folder), "all", 1)
    writer = next(writer for writer in source.writer_ids if writer != WRITERS[-1])
    shard = source.shard(writer)
    assert shard.labels.tolist() == [0, 10, 61, 5]
    assert shard.images.sum(axis=(1, 2, 3)).tolist() == [1, 1, 1, 2]
    assert sorted(source.writer_ids + source.held_out_writers) == WRITERS


def test_the_minimum_counts_training_images_of_the_chosen_classes(folder):
    assert len(open_fed_emnist(str(folder), "all", 3).writer_ids) == 5
    with pytest.raises(ValueError, match=r"0 of 6 writers .*min-images-per-writer=4"):
        open_fed_emnist(str(folder), "all", 4)
    with pytest.raises(ValueError, match="min-images-per-writer=2"):
        open_fed_emnist(str(folder), "digits", 2)


def test_a_writer_of_only_the_training_file_is_read(folder):
    source = open_fed_emnist(str(folder), "letters", 1)
    everyone = [*(source.shard(writer) for writer in source.writer_ids), source.held_out()]
    assert all(set(part.labels) == {0, 51} for part in everyone)


@pytest.mark.parametrize(
    ("pixels", "labels", "rule"),
    [
        (paper(1), [62], r"f0002_10/label: label 62 must be 0\.\.61"),
        (paper(0), [], "f0002_10/label: a writer without images"),
        (paper(1)[:, :20], [1], r"f0002_10/pixels: must be \(N, 28, 28\)"),
        (paper(1) * 2, [1], r"f0002_10/pixels: pixels must lie in \[0, 1\].*2.0"),
        (paper(2), [1], "f0002_10: 2 images need a label each"),
    ],
)
def test_wrong_content_is_refused_with_file_and_key(folder, pixels, labels, rule):
    good = {writer: (paper(1), [1]) for writer in WRITERS}
    write_hdf5(folder / TRAIN_FILE, {**good, WRITERS[2]: (pixels, labels)})
    write_hdf5(folder / TEST_FILE, {})
    with h5py.File(folder / TEST_FILE, "w") as file:
        file["examples/other/label"] = [1]
    with pytest.raises(ValueError, match=rf"fed_emnist_train\.h5.*:examples/{rule}"):
        read_everything(open_fed_emnist(str(folder), "all", 1))


def test_a_file_of_another_format_and_a_missing_one_are_refused_by_name(monkeypatch, folder):
    with h5py.File(folder / TRAIN_FILE, "w") as file:
        file["clients"] = [1]
    with pytest.raises(ValueError, match=r"fed_emnist_train\.h5: must hold writers"):
        open_fed_emnist(str(folder), "all", 1)
    (folder / TRAIN_FILE).write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"fed_emnist_train\.h5: must be an HDF5 file"):
        open_fed_emnist(str(folder), "all", 1)
    (folder / TEST_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"fed_emnist_test\.h5: no such file"):
        open_fed_emnist(str(folder), "all", 1)
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data-dir='' and FED_GSWGAN_DATA unset: set one"):
        open_fed_emnist("", "all", 1)


def damaged(folder):
    """Break the file's second index: the one of its writers."""
    content = bytearray((folder / TRAIN_FILE).read_bytes())
    at = content.index(b"SNOD", content.index(b"SNOD") + 1)
    content[at : at + 4] = b"none"
    (folder / TRAIN_FILE).write_bytes(content)


def without_labels(folder):
    with h5py.File(folder / TRAIN_FILE, "a") as file:
        del file[f"examples/{WRITERS[0]}/label"]
        file[f"examples/{WRITERS[0]}/label"] = h5py.SoftLink("/nowhere")


def without_writer(folder):
    with h5py.File(folder / TRAIN_FILE, "a") as file:
        file["examples/x"] = h5py.ExternalLink("gone.h5", "/x")


@pytest.mark.parametrize("spoil", [damaged, without_labels, without_writer])
def test_a_damaged_file_is_refused_by_name(folder, spoil):
    spoil(folder)
    with pytest.raises(ValueError, match=r"fed_emnist_train\.h5.*(damaged|a writer's group)"):
        read_everything(open_fed_emnist(str(folder), "all", 1))


def test_pixels_must_be_real_numbers(folder):
    with h5py.File(folder / TRAIN_FILE, "a") as file:
        del file[f"examples/{WRITERS[0]}/pixels"]
        file[f"examples/{WRITERS[0]}/pixels"] = paper(3).astype(np.complex64)
    with pytest.raises(ValueError, match="pixels must be numbers, not complex64"):
        read_everything(open_fed_emnist(str(folder), "all", 1))


def test_real_writers_with_sixty_images_give_enough_clients_and_held_out_writers(fed_gswgan_data):
    source = open_fed_emnist(str(fed_gswgan_data), "all", 60)
    assert len(source.writer_ids) >= 400
    assert len(source.held_out_writers) >= 30
    assert len(source.writer_ids) + len(source.held_out_writers) == 487
    assert not set(source.writer_ids) & set(source.held_out_writers)


def test_real_held_out_images_show_all_62_classes_ink_on_paper(fed_gswgan_data):
    held_out = open_fed_emnist(str(fed_gswgan_data), "all", 60).held_out()
    assert set(held_out.labels) == set(range(62))
    assert 0 <= held_out.images.min() < held_out.images.max() <= 1
    assert held_out.images.mean() < 0.3


def test_real_held_out_writers_are_no_clients_with_other_settings(fed_gswgan_data):
    held_out = set(open_fed_emnist(str(fed_gswgan_data), "all", 60).held_out_writers)
    for classes, minimum in (("digits", 20), ("merged", 1)):
        assert not held_out & set(
            open_fed_emnist(str(fed_gswgan_data), classes, minimum).writer_ids
        )


def write_json(path, writers):
    path.parent.mkdir(exist_ok=True)
    content = {
        "users": list(writers),
        "num_samples": [len(x) if isinstance(x, list) else 1 for x, _ in writers.values()],
        "user_data": {writer: {"x": x, "y": y} for writer, (x, y) in writers.items()},
    }
    path.write_text(json.dumps(content))


def rows(count, ink=1):
    return [[0.0] * ink + [1.0] * (784 - ink)] * count


def test_a_writers_images_in_all_leaf_files_are_one_shard(tmp_path):
    write_json(tmp_path / "train" / "a.json", {w: (rows(2), [0, 61]) for w in WRITERS[:3]})
    write_json(tmp_path / "train" / "b.json", {w: (rows(2), [0, 61]) for w in WRITERS[3:]})
    write_json(tmp_path / "test" / "a.json", {w: (rows(1, ink=3), [10]) for w in WRITERS})
    source = open_leaf_femnist(str(tmp_path), "all", 3)
    shard = source.shard(source.writer_ids[0])
    assert shard.labels.tolist() == [0, 61, 10]
    assert shard.images.sum(axis=(1, 2, 3)).tolist() == [1, 1, 3]
    assert shard.images[2, 0, 0, :4].tolist() == [1, 1, 1, 0]


def test_the_minimum_of_leaf_counts_the_chosen_classes(tmp_path):
    write_json(tmp_path / "a.json", {w: (rows(3), [1, 11, 41]) for w in WRITERS})
    (tmp_path / "empty").mkdir()
    assert open_leaf_femnist(str(tmp_path), "letters", 2).writer_ids
    with pytest.raises(FileNotFoundError, match="no LEAF file"):
        open_leaf_femnist(str(tmp_path / "empty"), "digits", 2)
    with pytest.raises(ValueError, match="0 of 6 writers"):
        open_leaf_femnist(str(tmp_path), "digits", 2)


def test_the_same_writers_are_held_out_of_every_packaging(tmp_path):
    write_json(tmp_path / "a.json", {w: (rows(1), [1]) for w in WRITERS})
    expected = split_writers(dict.fromkeys(WRITERS, 1), 1, "fed-emnist").held_out
    assert open_leaf_femnist(str(tmp_path), "all", 1).held_out_writers == expected


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [
        (rows(1), [62], r"f0002_10/y: label 62 must be 0\.\.61"),
        (rows(1), [1.5], "f0002_10/y: labels must be whole numbers"),
        ([[1.0] * 783], [1], r"f0002_10/x: must be .*784.*not \(1, 783\)"),
        ([[1.0] * 784, [1.0]], [1, 1], "f0002_10/x: must be .*and images differ in length"),
        ([1.0], [1], r"f0002_10/x: must be .*784.*not \(1,\)"),
        ([[255.0] * 784], [1], r"f0002_10/x: pixels must lie in \[0, 1\]"),
        ([["a"] * 784], [1], "f0002_10/x: pixels must be numbers"),
        (rows(2), [1], "f0002_10/y: must be a list of 2 entries"),
        (7, [1], "f0002_10/x: must be a list of 1 entries"),
    ],
)
def test_wrong_leaf_content_is_refused_with_file_and_user(tmp_path, x, y, rule):
    write_json(tmp_path / "a.json", {**{w: (rows(1), [1]) for w in WRITERS}, WRITERS[2]: (x, y)})
    with pytest.raises(ValueError, match=rf"a\.json:user_data/{rule}"):
        read_everything(open_leaf_femnist(str(tmp_path), "all", 1))


def leaf(**changes):
    users = {"f1": {"x": rows(1), "y": [7]}, "f2": {"x": rows(2), "y": [1, 2]}}
    return {"users": list(users), "num_samples": [1, 2], "user_data": users, **changes}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "must be a LEAF file"),
        ("[]", "must be a LEAF file"),
        (json.dumps(leaf())[:-20], "must be a LEAF file"),
        ({"users": ["f1"]}, "num_samples"),
        ("[" * 100_000, "must be a LEAF file"),
        (leaf(users=[["f1"], ["f2"]]), "users must be strings"),
        (leaf(users="f1"), "two lists and an object"),
        (leaf(users=["f1", "f3"]), "must name the same users"),
        (leaf(users=["f1", "f1"]), "must name the same users"),
        (leaf(num_samples=[1, 2, 3]), "they have 2, 3 and 2"),
        (leaf(num_samples=[0, 2]), "num_samples of user 'f1' is 0 and must be >= 1"),
        (leaf(user_data={"f1": {"x": rows(1)}, "f2": 1}), "user_data/f1: must be an object"),
    ],
)
def test_another_leaf_layout_is_refused_with_the_file_and_the_rule(tmp_path, content, rule):
    (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"a\.json.*{rule}"):
        open_leaf_femnist(str(tmp_path), "all", 1)


def test_an_error_shows_no_content_of_a_leaf_file(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(leaf()).encode().replace(b"f1", b"\xfc1"))
    with pytest.raises(ValueError, match=r"a\.json: must be a LEAF file.*0xfc") as refused:
        open_leaf_femnist(str(tmp_path), "all", 1)
    assert len(str(refused.value)) < 400


def test_what_file_systems_leave_beside_leaf_files_is_skipped_and_said(tmp_path):
    write_json(tmp_path / "a.json", {w: (rows(1), [1]) for w in WRITERS})
    (tmp_path / "._a.json").write_bytes(b"\0\5\x16\7")
    (tmp_path / "old.json").mkdir()
    source = open_leaf_femnist(str(tmp_path), "all", 1)
    assert source.notes == ("skipped, since no image belongs there, 2: ._a.json, old.json",)
