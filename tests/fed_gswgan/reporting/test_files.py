import math
import os

import pytest

from fed_gswgan.reporting.files import replace_file, replace_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path):
    path = tmp_path / "notes"
    replace_file(path, b"a long first version")
    replace_file(path, b"short")
    assert path.read_bytes() == b"short"
    assert names(tmp_path) == ["notes"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    replace_file(path, b"old")

    def crash(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_is_no_number_and_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "summary.json"
    replace_json(path, {"epsilon": 1.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        replace_json(path, {"epsilon": value})
    assert path.read_text() == '{\n  "epsilon": 1.5\n}\n'
    assert names(tmp_path) == ["summary.json"]
