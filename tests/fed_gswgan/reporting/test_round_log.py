import json
import logging
import math
from dataclasses import replace

import pytest

from fed_gswgan.reporting.round_log import RoundLog, bytes_by_client


def rounds_in(folder):
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line)["server_round"] for line in lines]


@pytest.fixture
def write(tmp_path, report_of):
    def write_rounds(server_rounds, finished_round=0):
        log = RoundLog(tmp_path, finished_round)
        for server_round in server_rounds:
            log.write(report_of(server_round))
        log.close()

    return write_rounds


def test_every_round_is_one_line_with_the_whole_report(tmp_path, write, report_of):
    write([1, 2, 3])
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [report_of(n).to_dict() for n in (1, 2, 3)]


def test_a_round_whose_norms_diverged_is_a_line_of_strict_json(tmp_path, report_of):
    log = RoundLog(tmp_path, 0)
    log.write(replace(report_of(1), generator_gradient_norm=math.nan))
    log.close()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    (line,) = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["generator_gradient_norm"] is None


def test_a_line_is_on_disk_before_the_next_round(tmp_path, report_of):
    log = RoundLog(tmp_path, 0)
    log.write(report_of(1))
    assert rounds_in(tmp_path) == [1]
    log.close()


def test_a_resumed_run_drops_the_rounds_after_its_checkpoint(tmp_path, write):
    write([1, 2, 3, 4, 5])
    write([4, 5, 6], finished_round=3)
    assert rounds_in(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_last_line_that_a_crash_cut_short_is_dropped(tmp_path, write):
    write([1, 2])
    path = tmp_path / "rounds.jsonl"
    path.write_text(path.read_text() + '{"server_round": 3, "asked"')
    write([3], finished_round=5)
    assert rounds_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("line", ["", "12", "{}", "[1]", '{"server_round": null}', "\x00\x00"])
def test_lines_that_are_no_round_are_dropped(tmp_path, write, line):
    write([1])
    path = tmp_path / "rounds.jsonl"
    path.write_text(path.read_text() + line + "\n")
    write([2], finished_round=1)
    assert rounds_in(tmp_path) == [1, 2]


def test_a_round_is_one_line_in_the_log(write, caplog):
    with caplog.at_level(logging.INFO):
        write([2])
    assert [record.getMessage() for record in caplog.records] == [
        "round 2: 6 of 10 replies, epsilon at most 9.0, 2.0 kB down, 1.0 kB up, 1.50 s"
    ]


def test_the_bytes_of_a_client_are_those_of_all_its_rounds(tmp_path, report_of):
    log = RoundLog(tmp_path, 0)
    log.write(report_of(1))
    log.write(replace(report_of(2), bytes_by_client={"b": [7, 5], "c": [1, 0]}))
    assert bytes_by_client(tmp_path) == {"a": [1500, 1000], "b": [1507, 5], "c": [1, 0]}
    log.close()
