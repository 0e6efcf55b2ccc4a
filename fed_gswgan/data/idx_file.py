"""Arrays in MNIST's IDX format, mapped into memory: processes on one machine share the pages."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x0C: np.dtype(">i4"),
}  # the two that QMNIST uses


def map_idx(path: Path) -> NDArray[Any]:
    """Map an IDX file of bytes or of 32-bit numbers.

    Source: the file format, as given on the MNIST page: two zero bytes, the type, the number of
    dimensions, a big-endian 32-bit length of each, then the values.

    Raises:
        ValueError: another format, or fewer or more values than its header says.
    """
    with path.open("rb") as file:
        header = file.read(4)
        if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in _DTYPES or not header[3]:
            raise ValueError(f"{path}: must be an IDX file, and starts with {header!r}")
        lengths = file.read(4 * header[3])
    dtype = _DTYPES[header[2]]
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
