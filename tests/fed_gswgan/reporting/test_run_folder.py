import json
import math

import pytest

from fed_gswgan.config import BudgetConfig, Config, RunConfig
from fed_gswgan.reporting.run_folder import RunFolder, config_of_run, default_folder


def config_in(folder, resume=False, **budget):
    run = RunConfig(output_dir=str(folder), resume=resume, seed=5)
    return Config(run=run, budget=BudgetConfig(**budget))


def test_a_new_run_gets_its_folder_and_an_id_of_its_own(tmp_path):
    first = RunFolder.open(config_in(tmp_path / "deep" / "a"))
    second = RunFolder.open(config_in(tmp_path / "b"))
    assert first.path == tmp_path / "deep" / "a"
    assert first.path.is_dir()
    assert len(first.experiment_id) == 16
    assert first.experiment_id != second.experiment_id


def test_a_run_that_is_there_already_is_refused_and_left_as_it_is(tmp_path):
    RunFolder.open(config_in(tmp_path))
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(FileExistsError, match=f"output-dir={tmp_path} holds a run already"):
        RunFolder.open(config_in(tmp_path))
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_resumed_run_keeps_its_experiment_id(tmp_path):
    begun = RunFolder.open(config_in(tmp_path))
    assert RunFolder.open(config_in(tmp_path, resume=True)) == begun


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        RunFolder.open(config_in(tmp_path / "none", resume=True))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("max_epsilon", [math.inf, 8.0])
def test_the_settings_of_a_run_are_read_back_as_they_were(tmp_path, max_epsilon):
    config = config_in(tmp_path, max_epsilon=max_epsilon)
    RunFolder.open(config)
    assert config_of_run(tmp_path) == config.to_run_config()
    assert Config.from_run_config(config_of_run(tmp_path)) == config


def test_the_record_is_strict_json_and_names_the_versions(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    RunFolder.open(config_in(tmp_path))
    record = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert record["config"]["max-epsilon"] == "inf"
    assert set(record["versions"]) == {"fed-gswgan", "flwr", "torch", "numpy"}


def test_a_folder_that_holds_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"is {tmp_path} the folder of a run"):
        config_of_run(tmp_path)


def test_the_default_folder_names_the_data_set():
    assert default_folder(Config()).startswith("runs/digits-")
