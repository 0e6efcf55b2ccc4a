import json
import time

import pytest

from fed_gswgan.profiling import PROFILE_FOLDER, process_name, timed


def lines(folder):
    return [
        json.loads(line) for line in (folder / f"{process_name()}.jsonl").read_text().splitlines()
    ]


def test_a_block_that_was_timed_is_noted_with_its_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv(PROFILE_FOLDER, str(tmp_path / "profile"))

    with timed("critic"):
        time.sleep(0.02)

    ((phase, seconds),) = lines(tmp_path / "profile")
    assert phase == "critic"
    assert 0.02 <= seconds < 5


def test_a_block_that_raises_is_noted_and_raises(tmp_path, monkeypatch):
    monkeypatch.setenv(PROFILE_FOLDER, str(tmp_path))

    with pytest.raises(ZeroDivisionError), timed("critic"):
        raise ZeroDivisionError

    assert [phase for phase, _ in lines(tmp_path)] == ["critic"]


def test_nothing_is_written_where_nobody_asked(tmp_path, monkeypatch):
    monkeypatch.delenv(PROFILE_FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)

    with timed("critic"):
        pass

    assert list(tmp_path.iterdir()) == []
