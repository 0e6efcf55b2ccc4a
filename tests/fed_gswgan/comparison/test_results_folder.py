import numpy as np
import pytest
import torch

from fed_gswgan.comparison.results_folder import ResultsFolder

SETTINGS = {"table": 1, "dataset": "mnist", "epsilon": 10.0}


@pytest.fixture
def results(tmp_path):
    folder = ResultsFolder(tmp_path / "out")
    folder.open(SETTINGS)
    return folder


def test_a_cell_is_finished_once_it_is_kept(results):
    settings = {"steps": 3, "adam": (0.5, 0.9)}
    assert not results.finished("dp-merf-0", settings)
    results.keep("dp-merf-0", {"epsilon": 9.9, "settings": settings})
    assert results.finished("dp-merf-0", settings)
    assert results.read("dp-merf-0")["epsilon"] == 9.9


@pytest.mark.parametrize("kept", [{"settings": {"steps": 4}}, {}])
def test_a_cell_of_other_settings_is_not_finished(results, kept):
    results.keep("dp-merf-0", kept)
    assert not results.finished("dp-merf-0", {"steps": 3})


def test_a_folder_of_the_same_comparison_is_opened_again_with_its_cells(results):
    results.keep("a-0", {"x": 1})
    again = ResultsFolder(results.folder)
    again.open(dict(SETTINGS))
    assert again.read("a-0") == {"x": 1}


@pytest.mark.parametrize("changed", [{"epsilon": 1.0}, {"delta": 1e-5}])
def test_a_folder_of_another_comparison_is_refused_by_the_setting_that_differs(results, changed):
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name}="):
        ResultsFolder(results.folder).open(SETTINGS | changed)


def test_samples_come_back_and_a_cell_without_has_none(results):
    samples = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28)
    results.keep_samples("a-0", samples)
    assert np.array_equal(results.samples("a-0"), samples)
    assert results.samples("real-0") is None


def test_the_log_has_a_line_for_each_step_as_it_happens(results):
    with results.progress_log("a-0") as log:
        log("training: 50%")
        written = (results.folder / "logs" / "a-0.log").read_text()
        assert written.endswith("s  training: 50%\n")


def test_the_judge_comes_back_to_the_bit(results):
    weights = {"logits.weight": torch.rand(3, 4)}
    results.keep_judge(weights)
    assert torch.equal(results.judge()["logits.weight"], weights["logits.weight"])
