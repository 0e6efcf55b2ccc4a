import json
import logging
import math
from dataclasses import replace

import pytest
import torch

from fed_gswgan.reporting.round_log import RoundLog, TensorBoardWriter, bytes_by_client


def test_a_report_is_plain_json_values_by_name(report_of):
    record = report_of(3).to_dict()
    assert json.loads(json.dumps(record)) == record
    assert record["server_round"] == 3
    assert record["epsilon_server_bound"] == 13.5


def test_every_client_that_was_asked_is_counted_once(report_of):
    report = report_of(1)
    assert report.received + report.failed + report.malformed + report.missing == report.asked


@pytest.mark.parametrize("norm", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_null(report_of, norm):
    report = replace(report_of(1), metrics={"norm": norm, "other": 1.0})
    assert report.to_dict()["metrics"] == {"norm": None, "other": 1.0}
    json.dumps(report.to_dict(), allow_nan=False)


def rounds_in(folder):
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line)["server_round"] for line in lines]


@pytest.fixture
def write(tmp_path, report_of):
    def write_rounds(server_rounds, finished_round=0):
        log = RoundLog(tmp_path, finished_round, 4)
        for server_round in server_rounds:
            log.write(report_of(server_round))
        log.close()

    return write_rounds


def test_every_round_is_one_line_with_the_whole_report(tmp_path, write, report_of):
    write([1, 2, 3])
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [report_of(n).to_dict() for n in (1, 2, 3)]


def test_a_line_is_on_disk_before_the_next_round(tmp_path, report_of):
    log = RoundLog(tmp_path, 0, 4)
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


def test_a_round_is_one_line_in_the_log_with_the_time_left(write, caplog):
    with caplog.at_level(logging.INFO):
        write([2, 4])
    replies = "6 of 10 replies (1 failed, 2 malformed, 1 missing)"
    assert [record.getMessage() for record in caplog.records] == [
        f"round 2/4: {replies}, epsilon at most 9.0, 2.0 kB down, 1.0 kB up, 1.50 s, 0:00:03 left",
        f"round 4/4: {replies}, epsilon at most 18.0, 2.0 kB down, 1.0 kB up, 1.50 s",
    ]


def test_a_round_says_whose_replies_are_noise_alone(report_of):
    report = replace(report_of(1), received=10, failed=0, malformed=0, missing=0, noise_alone=10)
    assert report.outcome() == "10 of 10 replies (10 noise alone)"
    assert report.informed == 0
    assert replace(report, noise_alone=None).outcome() == "10 of 10 replies"


def test_the_bytes_of_a_client_are_those_of_all_its_rounds(tmp_path, report_of):
    log = RoundLog(tmp_path, 0, 4)
    log.write(report_of(1))
    log.write(replace(report_of(2), bytes_by_client={"b": [7, 5], "c": [1, 0]}))
    assert bytes_by_client(tmp_path) == {"a": [1500, 1000], "b": [1507, 5], "c": [1, 0]}
    log.close()


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


@pytest.fixture
def board(tmp_path, report_of):
    def write_rounds(server_rounds, finished_round=0, downlink=1000):
        writer = TensorBoardWriter(tmp_path, finished_round)
        for server_round in server_rounds:
            writer.write(report_of(server_round), downlink * server_round, 500 * server_round)
        writer.close()

    return write_rounds


def steps_and_values(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_scalars_are_there_under_area_and_name(tmp_path, board):
    board([1, 2])
    events = read_back(tmp_path)
    assert {
        tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    } == {
        "privacy/epsilon_server_bound": [4.5, 9.0],
        "bytes/downlink_total": [1000, 2000],
        "bytes/uplink_total": [500, 1000],
        "cohort/asked": [10, 10],
        "cohort/replies": [6, 6],
        "cohort/failed": [4, 4],  # 1 failed, 2 malformed, 1 missing
        "algorithm/generator_gradient_norm": [0.5, 0.5],
        "algorithm/combined_gradient_norm": [0.25, 0.25],
        "time/round_seconds": [1.5, 1.5],
    }


def test_samples_and_metrics_are_there_at_their_round(tmp_path):
    writer = TensorBoardWriter(tmp_path, 0)
    writer.write_samples(torch.zeros(3, 32, 62), 20)
    writer.write_metrics({"label_agreement": 0.75}, 40)
    writer.close()
    events = read_back(tmp_path)
    (image,) = events.Images("samples/by_class")
    assert (image.step, image.height, image.width) == (20, 32, 62)
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert steps_and_values(events, "metrics/label_agreement") == [(40, 0.75)]


def test_a_resumed_run_takes_the_place_of_the_rounds_it_repeats(tmp_path, board):
    board([1, 2, 3, 4])
    board([3, 4, 5], finished_round=2, downlink=7000)
    assert steps_and_values(read_back(tmp_path), "bytes/downlink_total") == [
        (1, 1000), (2, 2000), (3, 21000), (4, 28000), (5, 35000),
    ]  # fmt: skip
