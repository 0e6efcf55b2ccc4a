import io

import pytest
from rich.console import Console

from fed_gswgan.comparison.cells import Cell, run_cell
from fed_gswgan.comparison.parallel import run_cells
from fed_gswgan.comparison.results_folder import CellsFailed, ResultsFolder


def test_a_cell_that_fails_is_named_with_its_error(tmp_path):
    ResultsFolder(tmp_path).open({})
    cell = Cell(
        dataset="mnist", data_dir=tmp_path, preset="small", epsilon=10.0, delta=1e-5,
        method="dp-merf", seed=0,
    )  # fmt: skip
    finished = []
    with pytest.raises(CellsFailed, match=r"dp-merf-0 failed, .*FileNotFoundError.*MNIST"):
        run_cells(
            run_cell, [cell], tmp_path, 1, Console(file=io.StringIO()),
            lambda: finished.append(1),
        )  # fmt: skip
    assert not finished
