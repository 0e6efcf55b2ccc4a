"""A copy of the app that Flower bundles: a checkout may lie in a folder whose name it refuses."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "fed-gswgan"  # Flower refuses a name with an underscore
PACKAGES = ("fed_gswgan", "server", "client")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def copy_app(parent: Path) -> Path:
    """Copy the sources into ``parent``, in place of an older copy, and return the app's folder."""
    app = parent / NAME
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    for package in PACKAGES:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, app / package, ignore=without)
    for name in FILES:
        shutil.copy(ROOT / name, app / name)
    return app
