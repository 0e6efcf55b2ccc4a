import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fed_gswgan.cli import main
from simulations import run
from simulations.run import WRITERS


def test_a_reader_that_has_seen_enough_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed:
        command = [sys.executable, "-m", "fed_gswgan.cli", "data", "show", "digits"]
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands")[2].split()
    commands = ["run", "resume", "status", "sample", "evaluate", "data", "compare"]
    assert {*commands, "privacy", "device", "ledger"} <= {*listed}


def test_the_version_is_that_of_the_project(capsys):
    assert main(["--version"]) == 0
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"fed-gswgan {project['version']}\n"


@pytest.mark.parametrize("table", [["table1", "--dataset", "mnist"], ["table4"], ["ablation"]])
def test_a_comparison_by_no_worker_is_refused(tmp_path, capsys, table):
    words = ["compare", *table, "--workers", "0", "--output", str(tmp_path)]
    assert main(words) == 2
    assert "workers=0 must be a whole number >= 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "files"),
    [([], [WRITERS]), (["--set", "rounds=5"], []), (["a.toml"], [Path("a.toml")])],
)
def test_a_run_of_which_nothing_is_asked_is_that_of_the_writers(monkeypatch, words, files):
    asked = []
    monkeypatch.setattr(run, "simulate", lambda files, *others: asked.append(files) or 0)
    assert main(["run", *words]) == 0
    assert asked == [files]
    assert WRITERS.is_file()
