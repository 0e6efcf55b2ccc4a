import json

import pytest

from fed_gswgan.profiling import process_name
from fed_gswgan.reporting.round_profile import PHASES, RoundProfile

SERVER = [["generator", 0.5], ["codec", 0.125], ["exchange", 4.0], ["generator", 0.5]]
CLIENT = [["codec", 0.125], ["critic", 1.0], ["sanitize", 0.25], ["answer", 1.5]]


def note(folder, process, lines):
    with (folder / f"{process}.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def test_the_clients_of_the_process_that_worked_longest_are_those_the_round_waited_for(tmp_path):
    profile = RoundProfile(tmp_path)
    note(tmp_path, process_name(), SERVER)
    note(tmp_path, "one worker", CLIENT)
    note(tmp_path, "another worker", CLIENT * 2)

    assert profile.end_round(6.0) == {
        "generator": 1.0, "critic": 2.0, "sanitize": 0.5, "codec": 0.375, "engine_wait": 1.0,
        "other": 1.125,
    }  # fmt: skip


def test_where_clients_share_the_servers_process_nothing_counts_twice(tmp_path):
    profile = RoundProfile(tmp_path)
    note(tmp_path, process_name(), SERVER + CLIENT * 2)

    phases = profile.end_round(6.0)

    assert phases["codec"] == 0.375
    assert phases["engine_wait"] == 1.0
    assert sum(phases.values()) == 6.0


def test_of_clients_that_worked_while_the_server_did_only_what_it_waited_for_counts(tmp_path):
    profile = RoundProfile(tmp_path)
    note(tmp_path, process_name(), [["generator", 1.0], ["codec", 0.5], ["exchange", 1.5]])
    note(tmp_path, "a worker with two rounds", [["critic", 2.5], ["sanitize", 0.25], ["answer", 3]])

    phases = profile.end_round(3.0)

    assert phases == {
        "generator": 1.0, "critic": 1.25, "sanitize": 0.125, "codec": 0.5, "engine_wait": 0.0,
        "other": 0.125,
    }  # fmt: skip


def test_a_round_holds_what_was_noted_since_the_last(tmp_path):
    note(tmp_path, process_name(), SERVER)  # of a run that this one resumes
    profile = RoundProfile(tmp_path)

    assert profile.end_round(1.0) == dict.fromkeys(PHASES, 0.0) | {"other": 1.0}
    note(tmp_path, process_name(), SERVER)
    assert profile.end_round(6.0)["generator"] == 1.0
    assert profile.summary() == {
        "rounds": 2,
        "seconds": pytest.approx({
            "generator": 1.0, "critic": 0.0, "sanitize": 0.0, "codec": 0.125, "engine_wait": 4.0,
            "other": 1.875,
        }),
    }  # fmt: skip


def test_a_line_that_is_being_written_is_read_once_it_is_whole(tmp_path):
    profile = RoundProfile(tmp_path)
    file = tmp_path / f"{process_name()}.jsonl"
    file.write_text('["generator", 1.0]\n["gener')

    assert profile.end_round(2.0)["generator"] == 1.0
    file.write_text('["generator", 1.0]\n["generator", 0.5]\n')
    assert profile.end_round(2.0)["generator"] == 0.5
