"""Files of a data set: the folder they are in, and arrays in MNIST's IDX format."""

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENVIRONMENT_VARIABLE = "FED_GSWGAN_DATA"
LFS_POINTER = b"version https://git-lfs"
IS_LFS_POINTER = "is a pointer of Git LFS and not the file itself; run git lfs pull"
MOST_NAMED = 5
# What operating systems and file servers leave in folders, beside names that begin with a dot.
DEBRIS = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "@eadir",
     "#recycle", "$recycle.bin", "system volume information")
)  # fmt: skip
CACHE_DIR = Path("~/.cache/fed-gswgan")

_IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x0C: np.dtype(">i4"),
}  # the two that QMNIST uses


def data_root(data_dir: str) -> Path | None:
    """Return the folder of ``data-dir``, else of FED_GSWGAN_DATA, else None.

    Raises:
        FileNotFoundError: the named folder does not exist.
    """
    if data_dir:
        return _folder("data-dir", data_dir)
    if value := os.environ.get(ENVIRONMENT_VARIABLE, ""):
        return _folder(ENVIRONMENT_VARIABLE, value)
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


def visible(folder: Path, skip: Callable[[Path], None] = lambda path: None) -> list[Path]:
    """Return the entries of a folder, sorted, without hidden files and debris of systems.

    Args:
        folder: to list.
        skip: is told what is left out.

    Raises:
        ValueError: a name that is no UTF-8.
    """
    kept = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in DEBRIS:
            skip(path)
            continue
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{folder}: the name {path.name!r} is no UTF-8; rename it") from error
        kept.append(path)
    return kept


def skipped_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the line that counts the files left out and names the first of them, if there are."""
    named = ", ".join([*names[:MOST_NAMED], *["..."][: len(names) > MOST_NAMED]])
    return (f"skipped, since no image belongs there, {len(names)}: {named}",) if names else ()


def require_file(path: Path, advice: str) -> Path:
    """Return the path of a file that exists, and is no pointer of Git LFS to one.

    Raises:
        FileNotFoundError: names the file, and gives the advice.
        ValueError: it is a pointer.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {advice}")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path}: {IS_LFS_POINTER}")
    return path


def npz_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Return arrays of an npz file by name, as they are stored; nothing is unpickled.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no npz file or a damaged one, or an array is missing or holds objects.
    """
    wanted = f"must be an npz file that holds {' and '.join(names)}"
    try:
        if isinstance(file := np.load(path, allow_pickle=False), np.ndarray):
            raise ValueError(f"it is one array of shape {file.shape}")
        with file:
            if missing := [name for name in names if name not in file]:
                raise ValueError(f"{missing[0]} is missing, it holds {sorted(file)}")
            return [file[name] for name in names]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: {wanted}, as numbers ({error})") from error


def map_idx(path: Path) -> NDArray[Any]:
    """Map an IDX file of bytes or of 32-bit numbers; processes on one machine share the pages.

    Source: the file format, as given on the MNIST page: two zero bytes, the type, the number of
    dimensions, a big-endian 32-bit length of each, then the values.

    Raises:
        ValueError: another format, or fewer or more values than its header says.
    """
    with path.open("rb") as file:
        header = file.read(4)
        known = len(header) == 4 and header[:2] == b"\0\0" and header[2] in _IDX_DTYPES
        if not known or not header[3]:
            raise ValueError(f"{path}: must be an IDX file, and starts with {header!r}")
        lengths = file.read(4 * header[3])
    dtype = _IDX_DTYPES[header[2]]
    shape = tuple(int(length) for length in np.frombuffer(lengths, dtype=">u4"))
    offset = 4 + 4 * header[3]
    byte_count = offset + int(np.prod(shape)) * dtype.itemsize
    if len(shape) != header[3] or path.stat().st_size != byte_count:
        raise ValueError(
            f"{path}: an IDX file of shape {shape} must have {byte_count} bytes, "
            f"not {path.stat().st_size}; fetch it again"
        )
    values: NDArray[Any] = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    return values


def _folder(name: str, value: str) -> Path:
    root = Path(value).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{name}={value!r} must be a folder; there is none")
    return root
