"""What pyproject.toml and the Makefile promise."""

import re
import tomllib
from pathlib import Path

from fed_gswgan.config import defaults, flower_table

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_table_of_settings_is_current():
    """``python -m fed_gswgan.config`` writes it."""
    assert flower_table() in (ROOT / "pyproject.toml").read_text()
    assert PROJECT["tool"]["flwr"]["app"]["config"] == defaults()


def test_every_documented_setting_has_a_comment_or_a_name_that_says_it():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("[tool.flwr.app.config]")
    settings = [line for line in lines[start:] if "=" in line and not line.startswith("#")]
    said_by_name = ("latent-dim", "critic-learning-rate", "drift-penalty", "adam-", "rounds",
                    "seed", "generator-learning-rate", "reply-timeout-seconds")  # fmt: skip

    for line in settings[: len(defaults())]:
        assert "#" in line or line.startswith(said_by_name), line


def test_the_wheel_holds_the_library_and_its_data():
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["fed_gswgan", "fed_gswgan_data"]
    assert not any("fed_gswgan_data" in p for p in PROJECT["tool"]["flwr"]["app"]["fab-include"])


def test_the_versions_of_python_that_are_promised_are_tested():
    named = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if "3." in c]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert named == re.findall(r'"(3\.\d+)"', workflow)
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_the_app_names_its_two_sides():
    components = PROJECT["tool"]["flwr"]["app"]["components"]

    assert components == {"serverapp": "server.app:app", "clientapp": "client.app:app"}


def test_the_versions_that_were_tested_are_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)

    assert pinned["flwr"].startswith("1.39.")
    for name in ("torch", "torchvision", "ray", "numpy", "tensorboard", "torchmetrics", "h5py"):
        assert name in pinned
    assert not [line for line in lines if "://" in line or "@" in line]
