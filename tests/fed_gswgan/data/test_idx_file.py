import numpy as np
import pytest

from fed_gswgan.data.files import map_idx


def write(path, kind, shape, content):
    header = bytes([0, 0, kind, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    path.write_bytes(header + content)
    return path


def test_bytes_and_numbers_come_back_in_their_shape(tmp_path):
    images = write(tmp_path / "images", 0x08, (2, 2, 3), bytes(range(12)))
    numbers = np.array([[1, -2], [300, 4]], dtype=">i4")
    labels = write(tmp_path / "labels", 0x0C, (2, 2), numbers.tobytes())
    assert map_idx(images).tolist() == np.arange(12).reshape(2, 2, 3).tolist()
    assert map_idx(labels).tolist() == numbers.tolist()


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00more", b"\0\0\x0d\x01"])
def test_another_format_is_refused_by_name(tmp_path, content):
    path = tmp_path / "wrong"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="wrong: must be an IDX file"):
        map_idx(path)


def test_a_file_cut_short_is_refused_with_both_lengths(tmp_path):
    path = write(tmp_path / "short", 0x08, (2, 2), b"\1\2\3")
    with pytest.raises(ValueError, match=r"short: .* must have 16 bytes, not 15"):
        map_idx(path)


def test_a_header_cut_short_is_refused(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"\0\0\x08\x02\0\0\0\1")
    with pytest.raises(ValueError, match="short"):
        map_idx(path)
