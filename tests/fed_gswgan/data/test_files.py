import numpy as np
import pytest

from fed_gswgan.data.files import data_root, map_idx, own_folder, require_file


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)


def test_the_setting_wins_over_the_environment(monkeypatch, tmp_path):
    assert data_root("") is None
    (tmp_path / "set").mkdir()
    monkeypatch.setenv("FED_GSWGAN_DATA", str(tmp_path))
    assert data_root(str(tmp_path / "set")) == tmp_path / "set"
    assert data_root("") == tmp_path
    assert own_folder(str(tmp_path), "folder", "layout") == tmp_path
    with pytest.raises(ValueError, match=r"data-dir='' must name a folder for dataset='folder'"):
        own_folder("", "folder", "layout")


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"data-dir='.*missing' must be a folder"):
        data_root(missing)
    monkeypatch.setenv("FED_GSWGAN_DATA", missing)
    with pytest.raises(FileNotFoundError, match=r"FED_GSWGAN_DATA='.*missing'"):
        data_root("")
    with pytest.raises(FileNotFoundError, match=r"a\.h5: no such file; fetch it"):
        require_file(tmp_path / "a.h5", "fetch it")


def write(path, kind, shape, content):
    header = bytes([0, 0, kind, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    path.write_bytes(header + content)
    return path


def test_bytes_and_numbers_of_idx_files_come_back_in_their_shape(tmp_path):
    images = write(tmp_path / "images", 0x08, (2, 2, 3), bytes(range(12)))
    numbers = np.array([[1, -2], [300, 4]], dtype=">i4")
    labels = write(tmp_path / "labels", 0x0C, (2, 2), numbers.tobytes())
    assert map_idx(images).tolist() == np.arange(12).reshape(2, 2, 3).tolist()
    assert map_idx(labels).tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "must be an IDX file"),
        (b"\x1f\x8b\x08\x00more", "must be an IDX file"),
        (b"\0\0\x0d\x01", "must be an IDX file"),
        (b"\0\0\x08\x02\0\0\0\1", "an IDX file of shape"),
        (b"\0\0\x08\x01\0\0\0\4\1\2\3", "must have 12 bytes, not 11"),
    ],
)
def test_another_format_and_a_file_cut_short_are_refused_by_name(tmp_path, content, rule):
    (tmp_path / "wrong").write_bytes(content)
    with pytest.raises(ValueError, match=f"wrong: .*{rule}"):
        map_idx(tmp_path / "wrong")
