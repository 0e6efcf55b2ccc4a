"""The hash of a request, by which a client knows one that it answered before."""

import hashlib
from collections.abc import Iterable

import numpy as np


def request_hash(asked: tuple[object, ...], arrays: Iterable[np.ndarray]) -> str:
    """Return 64 hexadecimal digits that change with every number asked with and every array.

    Args:
        asked: whatever decides the reply and is no array; told apart by ``repr``.
        arrays: in a fixed order; dtype and shape count.
    """
    digest = hashlib.sha256(repr(asked).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
