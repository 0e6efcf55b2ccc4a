import hashlib
import json

import h5py
import numpy as np
import pytest

from fed_gswgan.data.emnist import TEST_FILE, TRAIN_FILE, open_fed_emnist
from fed_gswgan.data.registry import DataSettings, open_source
from fed_gswgan.data.writers import DARKEST, FILE, MARGIN, MOST_IMAGES, open_writers, pack


@pytest.fixture(scope="module")
def source():
    return open_writers("digits", 0)


def test_the_file_is_the_one_that_was_made():
    noted = json.loads(FILE.with_suffix(".json").read_text())["sha256"]
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == noted[FILE.name]
    assert FILE.stat().st_size <= 4e6


def test_every_writer_is_a_client_or_held_out_and_has_forty_digits_at_most(source):
    assert (len(source.writer_ids), len(source.held_out_writers)) == (1232, 140)
    assert max(source.image_counts.values()) == MOST_IMAGES
    shard = source.shard(source.writer_ids[0])
    assert shard.images.shape == (source.image_counts[source.writer_ids[0]], 1, 28, 28)
    held_out = source.held_out()
    assert np.bincount(held_out.labels).min() > 200
    assert set(np.unique(DARKEST * held_out.images)) == set(range(DARKEST + 1))
    without = [writer for writer, count in source.image_counts.items() if not count]
    assert len(without) == 37
    asked = next(writer for writer in without if writer in source.writer_ids)
    assert len(source.shard(asked).labels) == 0


def test_a_run_finds_it_by_name_and_letters_are_refused():
    named = DataSettings(dataset="writers", classes="digits", min_images_per_writer=10)
    assert 0 < len(open_source(named).writer_ids) < 1232
    with pytest.raises(ValueError, match="classes='letters'"):
        open_writers("letters", 1)


def test_images_and_held_out_writers_are_those_of_fed_emnist(source, fed_gswgan_data):
    whole = open_fed_emnist(str(fed_gswgan_data), "digits", 0)
    assert source.held_out_writers == whole.held_out_writers
    noted = json.loads(FILE.with_suffix(".json").read_text())["sha256"]
    for name in (TRAIN_FILE, TEST_FILE):
        digest = hashlib.sha256((fed_gswgan_data / name).read_bytes()).hexdigest()
        assert digest == noted[name.as_posix()]
    few = [w for w in source.writer_ids if 0 < source.image_counts[w] < MOST_IMAGES]
    for writer in few[:20]:
        mine, theirs = source.shard(writer), whole.shard(writer)
        assert np.array_equal(mine.labels, theirs.labels)
        inside = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        error = np.abs(mine.images[inside] - theirs.images[inside]).max()
        assert error <= 0.5 / DARKEST + 1e-6


def test_packing_keeps_forty_images_of_a_writer_in_sixteen_greys(tmp_path):
    labels = {"f0001_10": [3] * 3, "f0002_10": list(range(10)) * 5, "f0003_10": [61]}
    (tmp_path / TRAIN_FILE).parent.mkdir()
    for part, path in enumerate((TRAIN_FILE, TEST_FILE)):
        with h5py.File(tmp_path / path, "w") as file:
            for writer, of_writer in labels.items():
                pixels = np.ones((len(of_writer), 28, 28), np.float32)
                pixels[:, 10, 10:12] = 0.0, 0.49
                for row, image in enumerate(pixels):  # no two are the same
                    image[11 + part, 6 + row % 15] = 0.0
                    image[13, 6 + row // 15] = 0.0
                file[f"examples/{writer}/pixels"] = pixels
                file[f"examples/{writer}/label"] = np.array(of_writer, np.int32)
    pack(str(tmp_path), tmp_path / "packed.npz")
    with np.load(tmp_path / "packed.npz") as packed:
        assert packed["writers"].tolist() == list(labels)
        assert packed["counts"].tolist() == [6, 40, 0]
        assert packed["images"].shape == (46, 20, 20)
        assert np.unique(packed["images"]).tolist() == [0, 8, 15]
        assert len(set(packed["labels"][6:].tolist())) == 10
