import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from fed_gswgan.comparison.cells import Cell, run_cell
from fed_gswgan.comparison.parallel import run_cells
from fed_gswgan.comparison.results_folder import CellsFailed, ResultsFolder


def test_a_cell_that_fails_is_named_with_its_error(tmp_path):
    ResultsFolder(tmp_path).open({})
    cell = Cell(
        dataset="mnist", data_dir=tmp_path, preset="small", epsilon=10.0, delta=1e-5,
        method="dp-merf", seed=0, device="cpu",
    )  # fmt: skip
    finished = []
    with pytest.raises(
        CellsFailed, match=r"dp-merf-epsilon10.0-0 failed.*FileNotFoundError.*MNIST"
    ):
        run_cells(
            run_cell, [cell], tmp_path, 1, Console(file=io.StringIO()),
            lambda: finished.append(1),
        )  # fmt: skip
    assert not finished


PARENT = """
import io, sys
from pathlib import Path
from rich.console import Console
from fed_gswgan.comparison.parallel import run_cells
sys.path.insert(0, {here!r})
from sleeping_cell import Named, sleep
if __name__ == "__main__":
    run_cells(sleep, [Named("a")], Path({folder!r}), 1, Console(file=io.StringIO()), lambda: None)
"""


def test_workers_end_with_a_comparison_that_is_killed(tmp_path):
    (tmp_path / "sleeping_cell.py").write_text(SLEEPING)
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(tmp_path), folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    pid_file = tmp_path / "pid"
    wait_until(pid_file.exists)
    worker = int(pid_file.read_text())
    assert running(worker)
    parent.kill()
    parent.wait()
    wait_until(lambda: not running(worker))


SLEEPING = """
import os, time
from dataclasses import dataclass

@dataclass
class Named:
    name: str

def sleep(cell, folder):
    (folder / "draft").write_text(str(os.getpid()))
    (folder / "draft").rename(folder / "pid")
    time.sleep(60)
"""


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
