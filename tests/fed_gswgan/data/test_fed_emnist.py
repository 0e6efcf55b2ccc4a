import h5py
import numpy as np
import pytest

from fed_gswgan.data.emnist import TEST_FILE, TRAIN_FILE, open_fed_emnist

WRITERS = [f"f{number:04d}_10" for number in range(6)]


def write(path, writers):
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
    write(tmp_path / TRAIN_FILE, {writer: (paper(3), [0, 10, 61]) for writer in WRITERS})
    write(tmp_path / TEST_FILE, {writer: (paper(1, ink=2), [5]) for writer in WRITERS[:-1]})
    return tmp_path


def test_a_shard_is_the_whole_person_with_ink_one(folder):
    source = open_fed_emnist(str(folder), "all", 1)
    writer = next(writer for writer in source.writer_ids if writer != WRITERS[-1])
    shard = source.shard(writer)
    assert shard.labels.tolist() == [0, 10, 61, 5]
    assert shard.images.sum(axis=(1, 2, 3)).tolist() == [1, 1, 1, 2]


def test_clients_and_held_out_writers_are_different_people(folder):
    source = open_fed_emnist(str(folder), "all", 1)
    assert source.held_out_writers
    assert sorted(source.writer_ids + source.held_out_writers) == WRITERS


def test_the_minimum_counts_training_images_of_the_chosen_classes(folder):
    assert len(open_fed_emnist(str(folder), "all", 3).writer_ids) == 5
    with pytest.raises(ValueError, match=r"0 of 6 writers .*min-images-per-writer=4"):
        open_fed_emnist(str(folder), "all", 4)
    with pytest.raises(ValueError, match="min-images-per-writer=2"):
        open_fed_emnist(str(folder), "digits", 2)


def test_a_writer_of_the_training_file_alone_can_be_read(folder):
    source = open_fed_emnist(str(folder), "letters", 1)
    everyone = [*(source.shard(writer) for writer in source.writer_ids), source.held_out()]
    assert all(set(part.labels) == {0, 51} for part in everyone)


def test_a_missing_file_is_named(folder):
    (folder / TEST_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"fed_emnist_test\.h5: no such file"):
        open_fed_emnist(str(folder), "all", 1)


def test_without_any_folder_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data-dir='' and FED_GSWGAN_DATA unset: set one"):
        open_fed_emnist("", "all", 1)


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
    write(folder / TRAIN_FILE, {**good, WRITERS[2]: (pixels, labels)})
    write(folder / TEST_FILE, {})
    with h5py.File(folder / TEST_FILE, "w") as file:
        file["examples/other/label"] = [1]
    with pytest.raises(ValueError, match=rf"fed_emnist_train\.h5.*:examples/{rule}"):
        read_everything(open_fed_emnist(str(folder), "all", 1))


@pytest.mark.parametrize("content", [b"", b"not HDF5"])
def test_a_file_of_another_format_is_refused_by_name(folder, content):
    (folder / TRAIN_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=r"fed_emnist_train\.h5: must be an HDF5 file"):
        open_fed_emnist(str(folder), "all", 1)


def test_a_file_without_writers_is_refused_by_name(folder):
    with h5py.File(folder / TRAIN_FILE, "w") as file:
        file["clients"] = [1]
    with pytest.raises(ValueError, match=r"fed_emnist_train\.h5: must hold writers"):
        open_fed_emnist(str(folder), "all", 1)


def read_everything(source):
    for writer in source.writer_ids:
        source.shard(writer)
    source.held_out()


def test_real_writers_with_sixty_images_give_enough_clients_and_held_out_people(real_data):
    source = open_fed_emnist(real_data, "all", 60)
    assert len(source.writer_ids) >= 400
    assert len(source.held_out_writers) >= 30
    assert len(source.writer_ids) + len(source.held_out_writers) == 487
    assert not set(source.writer_ids) & set(source.held_out_writers)


def test_real_held_out_images_show_all_62_classes_ink_on_paper(real_data):
    held_out = open_fed_emnist(real_data, "all", 60).held_out()
    assert set(held_out.labels) == set(range(62))
    assert 0 <= held_out.images.min() < held_out.images.max() <= 1
    assert held_out.images.mean() < 0.3


def test_real_shards_hold_all_62_classes_between_them(real_data):
    source = open_fed_emnist(real_data, "all", 60)
    shards = [source.shard(writer) for writer in source.writer_ids[::10]]
    assert set(np.concatenate([shard.labels for shard in shards])) == set(range(62))
    assert all(shard.images.mean() < 0.3 for shard in shards)
    assert min(len(shard.labels) for shard in shards) >= 60


def test_real_held_out_writers_are_no_clients_with_other_settings(real_data):
    held_out = set(open_fed_emnist(real_data, "all", 60).held_out_writers)
    for classes, minimum in (("digits", 20), ("merged", 1)):
        assert not held_out & set(open_fed_emnist(real_data, classes, minimum).writer_ids)
