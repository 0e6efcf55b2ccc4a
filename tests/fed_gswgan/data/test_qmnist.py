import numpy as np
import pytest

from fed_gswgan.data.qmnist import QmnistSource

# Class and writer of each digit; the last digit's pixel is its position.
TRAIN = [(3, 7), (4, 7), (5, 12), (6, 7)]
TEST = [(1, 20), (2, 21)]


def write_part(folder, part, digits):
    count = len(digits)
    pixels = np.zeros((count, 28, 28), dtype=np.uint8)
    pixels[:, 0, 0] = np.arange(count) * 51
    targets = np.zeros((count, 8), dtype=">i4")
    targets[:, 0], targets[:, 2] = np.array(digits).T
    lengths = [np.array(array.shape, dtype=">u4").tobytes() for array in (pixels, targets)]
    (folder / f"qmnist-{part}-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + lengths[0] + pixels.tobytes()
    )
    (folder / f"qmnist-{part}-labels-idx2-int").write_bytes(
        b"\0\0\x0c\x02" + lengths[1] + targets.tobytes()
    )


@pytest.fixture
def folder(tmp_path):
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    write_part(raw, "train", TRAIN)
    write_part(raw, "test", TEST)
    return tmp_path


def test_a_shard_holds_one_writers_digits(folder):
    source = QmnistSource(str(folder), "all", 1)
    assert source.writer_ids == ("0007", "0012")
    shard = source.shard("0007")
    assert shard.labels.tolist() == [3, 4, 6]
    assert shard.images[:, 0, 0, 0] == pytest.approx([0, 51 / 255, 153 / 255])


def test_held_out_digits_are_the_test_writers(folder):
    source = QmnistSource(str(folder), "digits", 1)
    assert source.held_out_writers == ("0020", "0021")
    assert source.held_out().labels.tolist() == [1, 2]
    with pytest.raises(ValueError, match="'0020' is not a client's writer"):
        source.shard("0020")


def test_the_minimum_removes_writers(folder):
    assert QmnistSource(str(folder), "all", 2).writer_ids == ("0007",)
    with pytest.raises(ValueError, match=r"min-images-per-writer=4 .* the largest has 3"):
        QmnistSource(str(folder), "all", 4)


def test_wrong_settings_and_files_are_refused_by_name(folder):
    with pytest.raises(ValueError, match="classes='letters'"):
        QmnistSource(str(folder), "letters", 1)
    write_part(folder / "QMNIST" / "raw", "train", [(10, 1)])
    with pytest.raises(ValueError, match="qmnist-train-labels-idx2-int: label 10"):
        QmnistSource(str(folder), "all", 1)
    (folder / "QMNIST" / "raw" / "qmnist-test-labels-idx2-int").unlink()
    with pytest.raises(FileNotFoundError, match="qmnist-test-labels-idx2-int: no such file"):
        QmnistSource(str(folder), "all", 1)


def test_the_cache_is_used_and_a_failed_download_says_what_to_set(monkeypatch, tmp_path, folder):
    from fed_gswgan.data import qmnist

    def refuse(*_args, **_settings):
        raise RuntimeError("no network")

    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)
    monkeypatch.setattr(qmnist, "CACHE_DIR", folder)
    assert QmnistSource("", "all", 1).writer_ids == ("0007", "0012")
    monkeypatch.setattr(qmnist, "CACHE_DIR", tmp_path / "empty")
    monkeypatch.setattr("torchvision.datasets.QMNIST", refuse)
    with pytest.raises(FileNotFoundError, match=r"no network.*data-dir or FED_GSWGAN_DATA"):
        QmnistSource("", "all", 1)


def test_real_qmnist_has_539_clients_and_297_other_held_out_writers(fed_gswgan_data):
    source = QmnistSource(str(fed_gswgan_data), "all", 1)
    assert len(source.writer_ids) == 539
    assert len(source.held_out_writers) == 297
    assert not set(source.writer_ids) & set(source.held_out_writers)
    assert source.held_out().images.shape == (10_000, 1, 28, 28)


def test_real_qmnist_shards_hold_all_digits_ink_on_paper(fed_gswgan_data):
    source = QmnistSource(str(fed_gswgan_data), "all", 1)
    total = 0
    for writer in source.writer_ids:
        shard = source.shard(writer)
        total += len(shard.labels)
        assert shard.images.min() == 0
        assert 0.02 < shard.images.mean() < 0.3
    assert total == 60_000
