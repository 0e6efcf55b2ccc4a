import json
import os
import time

import pytest

from fed_gswgan.cli import main
from fed_gswgan.reporting.run_folder import SUMMARY, WIRE_BYTES, open_run_folder
from tests.fed_gswgan.reporting.test_run_folder import SPEC, config_in


def status(capsys, *arguments):
    """Exit status and what was said."""
    code = main(["status", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def table(capsys, *arguments):
    code, said = status(capsys, *arguments, "--json")
    return code, json.loads(said)


@pytest.fixture
def stopped(small_run):
    """A whole run of two rounds whose end was not written."""
    folder = small_run(rounds=2, cohort_size=4)
    (folder / SUMMARY).unlink()
    return folder


def test_a_finished_run_is_healthy_and_says_what_it_cost(small_run, capsys):
    folder = small_run(rounds=2, cohort_size=4)
    summary = json.loads((folder / SUMMARY).read_text())

    code, found = table(capsys, folder)

    assert (code, found["state"], found["round"], found["rounds"]) == (0, "finished", 2, 2)
    assert found["replies"] == {
        "asked": 8, "received": 8, "failed": 0, "malformed": 0, "missing": 0,
    }  # fmt: skip
    assert found["epsilon_server_bound"] == summary["privacy"]["epsilon_server_bound"]
    for direction in ("uplink", "downlink"):
        assert found["payload_bytes"][direction] == summary["bytes"][f"{direction}_total"]
    assert found["wire_bytes"] is None


def test_a_stopped_run_is_not_healthy(stopped, capsys):
    code, said = status(capsys, stopped)
    assert code == 1
    assert "stopped, NOT healthy" in said


def test_a_run_at_work_is_healthy_until_its_last_round_is_too_old(stopped, capsys):
    with open_run_folder(config_in(stopped / "other"), 4, SPEC):
        assert table(capsys, stopped / "other")[1]["state"] == "running"
        old = time.time() - 100
        os.utime(stopped / "other" / "run.json", (old, old))
        assert status(capsys, stopped / "other", "--max-age", 200)[0] == 0
        assert status(capsys, stopped / "other", "--max-age", 50)[0] == 1


def test_without_a_limit_the_time_out_and_a_minute_are_one(tmp_path, capsys):
    with open_run_folder(config_in(tmp_path, reply_timeout_seconds=30.0), 4, SPEC):
        for age, code in ((80, 0), (100, 1)):
            old = time.time() - age
            os.utime(tmp_path / "run.json", (old, old))
            assert status(capsys, tmp_path)[0] == code


def test_bytes_counted_on_the_wire_stand_beside_the_payload(stopped, capsys):
    (stopped / WIRE_BYTES).write_text('{"uplink": 2500000, "downlink": 7000000}')
    said = status(capsys, stopped)[1]
    assert "on the wire: 2.500 MB up, 7.000 MB down" in said


def test_a_line_that_is_just_being_written_is_left_out(stopped, capsys):
    with (stopped / "rounds.jsonl").open("a") as file:
        file.write('{"server_round": 3, "ask')
    assert table(capsys, stopped)[1]["round"] == 2


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    code, said = status(capsys, tmp_path)
    assert code == 2
    assert "run.json" in said
