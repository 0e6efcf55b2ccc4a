import logging

import pytest

from fed_gswgan.reporting.logs import also_log_to


def test_a_runs_log_has_time_level_and_line_and_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run.log"
    for round_number in (1, 2):
        with also_log_to(path):
            logging.getLogger("server.round_strategy").warning("round %d: x", round_number)
            logging.getLogger("server.app").info("an info line")
            logging.getLogger("server.app").debug("a debug line")
            logging.getLogger("somebody.else").warning("not ours")
        logging.getLogger("server.app").warning("after the run")
    lines = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert lines == [
        "WARNING round 1: x", "INFO an info line", "WARNING round 2: x", "INFO an info line",
    ]  # fmt: skip


def test_logging_is_as_before_also_after_an_error(tmp_path):
    logger = logging.getLogger("server")
    before = (logger.level, list(logger.handlers))
    with pytest.raises(ValueError, match="broken"), also_log_to(tmp_path / "run.log"):
        raise ValueError("broken")
    assert (logger.level, list(logger.handlers)) == before
    assert (tmp_path / "run.log").read_text().endswith(" ERROR broken\n")


def test_a_strangers_text_that_is_no_unicode_does_not_stop_the_log(tmp_path, monkeypatch):
    path = tmp_path / "run.log"
    # Else pytest captures the line too, and cannot send it from one of its processes to another:
    # by its own handler, or by one to standard error that an earlier test's command left.
    monkeypatch.setattr(logging.getLogger("server"), "propagate", False)
    monkeypatch.setattr(logging.getLogger("server"), "handlers", [])
    with also_log_to(path):
        logging.getLogger("server").warning("%s", "\ud800")
    assert "\\ud800" in path.read_text()
