import pytest
import torch

from fed_gswgan.reporting.tensorboard_writer import TensorBoardWriter


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


@pytest.fixture
def write(tmp_path, report_of):
    def write_rounds(server_rounds, finished_round=0, downlink=1000):
        writer = TensorBoardWriter(tmp_path, finished_round)
        for server_round in server_rounds:
            writer.write(report_of(server_round), downlink * server_round, 500 * server_round)
        writer.close()

    return write_rounds


def steps_and_values(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_scalars_are_there_under_area_and_name(tmp_path, write):
    write([1, 2])
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
        "generator/gradient_norm": [0.5, 0.5],
        "generator/combined_gradient_norm": [0.25, 0.25],
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


def test_a_resumed_run_takes_the_place_of_the_rounds_it_repeats(tmp_path, write):
    write([1, 2, 3, 4])
    write([3, 4, 5], finished_round=2, downlink=7000)
    assert steps_and_values(read_back(tmp_path), "bytes/downlink_total") == [
        (1, 1000), (2, 2000), (3, 21000), (4, 28000), (5, 35000),
    ]  # fmt: skip
