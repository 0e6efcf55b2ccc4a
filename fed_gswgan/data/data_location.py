"""Where the files of a data set are: the setting, or the environment, or an error saying so."""

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "FED_GSWGAN_DATA"
CACHE_DIR = Path("~/.cache/fed-gswgan")


def data_root(data_dir: str) -> Path | None:
    """Return the folder of ``data-dir``, else of FED_GSWGAN_DATA, else None.

    Raises:
        FileNotFoundError: the folder is named, and is not there.
    """
    for name, value in (
        ("data-dir", data_dir),
        (ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE, "")),
    ):
        if value:
            return _folder(name, value)
    return None


def own_folder(data_dir: str, dataset: str, layout: str) -> Path:
    """Return the folder of ``data-dir`` for a data set that FED_GSWGAN_DATA does not hold.

    Raises:
        ValueError: ``data_dir`` is empty.
        FileNotFoundError: it is no folder.
    """
    if not data_dir:
        raise ValueError(f"data-dir='' must name a folder for dataset={dataset!r}: {layout}")
    return _folder("data-dir", data_dir)


def require_file(path: Path, advice: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        FileNotFoundError: names the file, and gives the advice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {advice}")
    return path


def _folder(name: str, value: str) -> Path:
    root = Path(value).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{name}={value!r} must be a folder; there is none")
    return root
