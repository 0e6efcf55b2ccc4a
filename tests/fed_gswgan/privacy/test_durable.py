"""A file that is replaced in one step, or not at all."""

import errno
import os

import pytest

from fed_gswgan.privacy.durable import write_durably


def test_a_full_disk_is_named_by_path_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_durably(path, b"before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as refused:
        write_durably(path, b"after")
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
