import fcntl
import json
import math
import multiprocessing
import os
import threading

import pytest

from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.reporting.run_folder import (
    RESUMABLE,
    SUMMARY,
    RunFolder,
    check_run_folder,
    config_of_run,
    default_folder,
    is_running,
    open_run_folder,
    replace_file,
    replace_json,
)


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


SPEC = DataSpec((1, 28, 28), 10)


def config_in(folder, resume=False, **settings):
    table = {"output-dir": str(folder), "resume": resume, "seed": 5}
    table |= {key.replace("_", "-"): value for key, value in settings.items()}
    return Config.from_table(table)


def opened(config) -> RunFolder:
    """The folder of a run that is over again at once."""
    with open_run_folder(config, 4, SPEC) as run:
        return run


def everything_in(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_run_gets_its_folder_and_an_id_of_its_own(tmp_path):
    first = opened(config_in(tmp_path / "deep" / "a"))
    second = opened(config_in(tmp_path / "b"))
    assert first.path == tmp_path / "deep" / "a"
    assert first.path.is_dir()
    assert len(first.experiment_id) == 16
    assert first.experiment_id != second.experiment_id


def test_a_run_that_is_there_already_is_refused_and_left_as_it_is(tmp_path):
    opened(config_in(tmp_path))
    before = everything_in(tmp_path)
    for refuse in (opened, lambda config: check_run_folder(config, tmp_path)):
        with pytest.raises(FileExistsError, match=f"output-dir={tmp_path} holds a run already"):
            refuse(config_in(tmp_path))
    assert everything_in(tmp_path) == before


def test_a_resumed_run_keeps_its_experiment_id(tmp_path):
    begun = opened(config_in(tmp_path))
    again = opened(config_in(tmp_path, resume=True))
    assert (again.experiment_id, again.shards) == (begun.experiment_id, begun.shards)


def test_a_run_whose_learning_rate_falls_towards_its_last_round_cannot_be_lengthened(tmp_path):
    falling = {"rounds": 10, "generator-learning-rate-end-factor": 0.3}
    opened(config_in(tmp_path, **falling))

    with pytest.raises(ValueError, match=r"rounds=20 must stay 10 .*end-factor=0\.3"):
        opened(config_in(tmp_path, resume=True, **falling | {"rounds": 20}))
    opened(config_in(tmp_path, resume=True, **falling))


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json: not there"):
        opened(config_in(tmp_path / "none", resume=True))
    assert not (tmp_path / "none").exists()


def test_checking_a_folder_makes_none(tmp_path):
    check_run_folder(config_in(tmp_path / "none"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


CHANGES = {
    "rounds": 999, "checkpoint_every": 7, "samples_every": 9, "evaluation_samples": 0,
    "reply_timeout_seconds": 5.0, "min_replies": 2, "max_participations": 9,
    "max_epsilon": 8.0, "data_dir": "/elsewhere", "sample_contrast": 1.5,
    "evaluate_every": 3, "evaluation_references": False,
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_on_resuming_a_setting_that_is_no_part_of_the_rounds_may_change_and_is_kept(tmp_path, key):
    opened(config_in(tmp_path))
    changed = config_in(tmp_path, resume=True, **{key: CHANGES[key]})
    opened(changed)
    assert config_of_run(tmp_path) == changed.to_table()
    # The next to resume takes the changed one as it finds it.
    opened(Config.from_table(config_of_run(tmp_path) | {"resume": True}))
    assert config_of_run(tmp_path)[key.replace("_", "-")] == CHANGES[key]


def test_those_are_all_that_may_change():
    assert {key.replace("_", "-") for key in CHANGES} == set(RESUMABLE) - {"output-dir", "resume"}


OTHER_RUN = {
    "seed": 6, "noise_stddev": 50.0, "clipping": "message", "clipping_bound": 2.0,
    "noise_source": "seeded", "batch_size": 16, "cohort_size": 3, "delta": 1e-6,
    "neighboring_relation": "zero-out", "generator_width": 8, "critic": "conv",
    "uplink_bits": 8, "max_clients": 3, "dataset": "qmnist", "classes": "digits",
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER_RUN)
def test_on_resuming_nothing_else_may_change_and_the_refusal_names_both_values(tmp_path, key):
    opened(config_in(tmp_path))
    before = everything_in(tmp_path)
    name, value = key.replace("_", "-"), OTHER_RUN[key]
    was = config_of_run(tmp_path)[name]
    changed = config_in(tmp_path, resume=True, **{key: value})
    for refuse in (opened, lambda config: check_run_folder(config, tmp_path)):
        with pytest.raises(ValueError, match=f"{name}={value} differs from the {was} of the run"):
            refuse(changed)
    assert everything_in(tmp_path) == before


def test_while_a_run_is_open_nobody_else_in_this_process_gets_it(tmp_path):
    with open_run_folder(config_in(tmp_path), 4, SPEC):
        before = (tmp_path / "run.json").read_bytes()
        with pytest.raises(BlockingIOError, match=f"output-dir={tmp_path}: another process"):
            opened(config_in(tmp_path, resume=True))
        assert (tmp_path / "run.json").read_bytes() == before
    opened(config_in(tmp_path, resume=True))


def _hold(path, held, release):
    with open(path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held.set()
        release.wait(60)


def test_a_run_in_another_process_is_not_to_be_had_until_that_is_over(tmp_path):
    opened(config_in(tmp_path))
    before = everything_in(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    with pytest.raises(BlockingIOError, match=f"output-dir={tmp_path}: another process"):
        opened(config_in(tmp_path, resume=True, rounds=999))
    assert everything_in(tmp_path) == before
    release.set()
    process.join(60)
    opened(config_in(tmp_path, resume=True))


def test_a_run_that_failed_lets_go_of_its_folder(tmp_path):
    with pytest.raises(OSError, match="disk full"), open_run_folder(config_in(tmp_path), 4, SPEC):
        raise OSError("disk full")
    opened(config_in(tmp_path, resume=True))


@pytest.mark.parametrize("max_epsilon", [math.inf, 8.0])
def test_the_settings_of_a_run_are_read_back_as_they_were(tmp_path, max_epsilon):
    config = config_in(tmp_path, max_epsilon=max_epsilon)
    opened(config)
    assert config_of_run(tmp_path) == config.to_table()
    assert Config.from_table(config_of_run(tmp_path)) == config


def test_the_record_is_strict_json_and_names_the_versions(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    opened(config_in(tmp_path))
    record = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert record["config"]["max-epsilon"] == "inf"
    assert set(record["versions"]) == {"fed-gswgan", "flwr", "torch", "numpy"}


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"is {tmp_path} the folder of a run"):
        config_of_run(tmp_path)


def test_the_default_folder_names_the_data_set():
    assert default_folder(Config.from_table({})).startswith("runs/digits-")


def test_a_run_is_running_as_long_as_its_folder_is_open(tmp_path):
    assert not is_running(tmp_path / "none")
    with open_run_folder(config_in(tmp_path), 4, SPEC):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


def test_asking_whether_a_run_is_running_keeps_nobody_out(tmp_path):
    begun = opened(config_in(tmp_path))
    with open(tmp_path / "lock") as asking:
        fcntl.flock(asking, fcntl.LOCK_EX)
        assert is_running(tmp_path)  # to whoever cannot tell the asking from a run
        threading.Timer(0.03, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        again = opened(config_in(tmp_path, resume=True))
    assert (again.experiment_id, again.shards) == (begun.experiment_id, begun.shards)


def test_a_run_that_goes_on_has_no_summary_until_it_ends_again(tmp_path):
    opened(config_in(tmp_path))
    (tmp_path / SUMMARY).write_text("{}")
    opened(config_in(tmp_path, resume=True))
    assert not (tmp_path / SUMMARY).exists()
