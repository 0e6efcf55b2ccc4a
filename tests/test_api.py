"""The doctests of the public API, on one small run."""

import doctest
import os
import subprocess
import sys

import fed_gswgan
from fed_gswgan.device.shards import SIMULATION_FOLDER


def test_each_function_does_what_its_example_shows(tmp_path, task_identity, few_steps):
    before = os.environ.get(SIMULATION_FOLDER)
    names = {"FOLDER": tmp_path / "run", "__name__": "fed_gswgan"}
    order = ("load_settings", "run", "load_generator", "sample", "evaluate", "epsilon_of_run",
             "epsilon")  # fmt: skip
    runner = doctest.DocTestRunner()
    for name in order:
        function = getattr(fed_gswgan, name)
        for example in doctest.DocTestFinder().find(function, name, globs=vars(fed_gswgan) | names):
            assert example.examples, name
            runner.run(example)
    assert runner.failures == 0
    assert os.environ.get(SIMULATION_FOLDER) == before
    assert set(order) == set(fed_gswgan.__all__)


def test_importing_the_package_loads_neither_torch_nor_flower():
    code = "import sys, fed_gswgan; print({'torch', 'flwr', 'numpy'} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.strip() == "set()"
