"""A message as arrays and settings by name, free of any transport, with types checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Settings = Mapping[str, Any]
Fields = tuple[dict[str, np.ndarray], dict[str, Any]]


def scalar(config: Settings, name: str, expected: type) -> Any:
    """Return a setting; KeyError if it is missing, TypeError if it is of another type."""
    value = config[name]
    if type(value) is not expected:
        raise TypeError(f"{name} is a {type(value).__name__}, must be {expected.__name__}")
    return value


def require_dtype(name: str, array: np.ndarray, dtype: type) -> None:
    """Require exactly this dtype; TypeError otherwise."""
    if array.dtype != np.dtype(dtype):
        raise TypeError(f"{name} has dtype {array.dtype}, must be {np.dtype(dtype)}")
