from pathlib import Path

import pytest

from fed_gswgan.data.files import data_root, own_folder, require_file


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("FED_GSWGAN_DATA", raising=False)


def test_the_setting_wins_over_the_environment(monkeypatch, tmp_path):
    (tmp_path / "set").mkdir()
    monkeypatch.setenv("FED_GSWGAN_DATA", str(tmp_path))
    assert data_root(str(tmp_path / "set")) == tmp_path / "set"
    assert data_root("") == tmp_path


def test_neither_gives_no_folder():
    assert data_root("") is None


def test_a_missing_folder_is_refused_with_the_name_of_what_set_it(monkeypatch, tmp_path):
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"data-dir='.*missing' must be a folder"):
        data_root(missing)
    monkeypatch.setenv("FED_GSWGAN_DATA", missing)
    with pytest.raises(FileNotFoundError, match=r"FED_GSWGAN_DATA='.*missing'"):
        data_root("")


def test_a_data_set_of_ones_own_needs_the_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("FED_GSWGAN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"data-dir='' must name a folder for dataset='folder'"):
        own_folder("", "folder", "layout")
    assert own_folder(str(tmp_path), "folder", "layout") == tmp_path


def test_a_missing_file_is_named_with_the_advice(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.h5: no such file; fetch it"):
        require_file(Path(tmp_path / "a.h5"), "fetch it")
