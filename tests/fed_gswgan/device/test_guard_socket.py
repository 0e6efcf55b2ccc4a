import socket
import stat

import pytest

from fed_gswgan.device.guard_socket import LONGEST_PATH_BYTES, listen


def test_the_group_may_use_the_socket_and_nobody_else(tmp_path):
    path = tmp_path / "guard.sock"
    with listen(path):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660


def test_the_longest_path_is_what_the_system_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative path is as long as the test wants it
    (tmp_path / ("d" * 50)).mkdir()
    folder = (tmp_path / ("d" * 50)).relative_to(tmp_path)
    longest = folder / ("x" * (LONGEST_PATH_BYTES - 51))
    with listen(longest), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(longest))
    with socket.socket(socket.AF_UNIX) as one_more, pytest.raises(OSError, match="too long"):
        one_more.bind(f"{longest}x")


def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"must have at most 107; name a shorter one"):
        listen(tmp_path / ("x" * 100))


def test_what_is_no_socket_is_not_replaced(tmp_path):
    path = tmp_path / "guard.sock"
    path.write_text("notes")
    with pytest.raises(OSError, match="in use"):
        listen(path)
    assert path.read_text() == "notes"
