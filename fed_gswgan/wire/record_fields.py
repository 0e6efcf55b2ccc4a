"""Arrays and settings of a Flower record dict, with types checked; nothing is unpickled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

HEADER_BYTES = 128  # of NumPy's format


def records_of(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> RecordDict:
    """Return the records that every message here consists of: ``arrays`` and ``config``."""
    array_record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"arrays": array_record, "config": ConfigRecord(dict(config))})


def fields_of(records: RecordDict) -> tuple[dict[str, np.ndarray], ConfigRecord]:
    """Return what ``records_of`` was given.

    Raises:
        ValueError, TypeError: other records, or an array that cannot be read.
    """
    if set(records) != {"arrays", "config"}:
        raise ValueError(f"records {sorted(records)} must be arrays and config")
    arrays, config = records["arrays"], records["config"]
    if not isinstance(arrays, ArrayRecord) or not isinstance(config, ConfigRecord):
        raise TypeError("arrays must be an ArrayRecord and config a ConfigRecord")
    return {name: _numpy(name, array) for name, array in arrays.items()}, config


def require_small(records: RecordDict, size: int, dtype: Any) -> None:
    """Require that all arrays together take not much more than one of ``size`` numbers.

    Before any is read, so that reading costs little; what is wrong with it is for others to say.

    Raises:
        ValueError: they take more than four times as much.
    """
    largest_bytes = 4 * (size * int(np.dtype(dtype).itemsize) + HEADER_BYTES)
    arrays = [record for record in records.values() if isinstance(record, ArrayRecord)]
    found = sum(len(array.data) for record in arrays for array in record.values())
    if found > largest_bytes:
        raise ValueError(f"arrays of {found} bytes must be <= {largest_bytes}")


def _numpy(name: str, array: Array) -> np.ndarray:
    try:
        values = array.numpy()  # reads NumPy's format with pickle switched off
    except Exception as error:  # bytes of a stranger: NumPy raises a dozen types over them
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not isinstance(values, np.ndarray):
        raise TypeError(f"{name} is an archive, must be one array")
    if tuple(array.shape) != values.shape:
        raise ValueError(f"{name} says shape {tuple(array.shape)} and has {values.shape}")
    return values
