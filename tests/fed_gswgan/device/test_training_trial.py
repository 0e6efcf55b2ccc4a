import os
import subprocess
import sys

import pytest

from fed_gswgan.config import Config
from fed_gswgan.device.training_trial import try_training

NO_FOLDER_FOR_TEMPORARY_FILES = """
import tempfile
def none(): raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = none
from fed_gswgan.config import Config
from fed_gswgan.device.training_trial import try_training
try_training(Config.from_run_config({"critic-width": 8}), 10)
"""


@pytest.mark.parametrize("critic", ["mlp", "conv"])
@pytest.mark.parametrize("steps", [0, 5])
def test_where_training_works_nothing_is_said(critic, steps):
    settings = {"critic": critic, "critic-width": 8, "warm-start-steps": steps}
    assert try_training(Config.from_run_config(settings), 10) is None


def test_a_sandbox_without_a_folder_for_temporary_files_is_found_out():
    """As under systemd's ProtectSystem=strict without PrivateTmp."""
    kept = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}  # PyTorch's own
    done = subprocess.run(
        [sys.executable, "-c", NO_FOLDER_FOR_TEMPORARY_FILES],
        capture_output=True, text=True, env=kept | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert (
        "ValueError: a critic cannot be trained on this machine: FileNotFoundError" in done.stderr
    )
