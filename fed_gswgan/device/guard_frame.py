"""What goes over the guard's socket: one frame there, one frame back. Nothing is unpickled.

A frame is 16 bytes (a magic word, the lengths of head and body), a head in JSON and a body of the
arrays' raw little-endian numbers, one after the other in the head's order. Each length is checked
before memory is taken for it, and what the head says of the arrays against the body's length.
"""

import json
import math
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fed_gswgan.privacy.refusals import MalformedInput

PREFIX = struct.Struct("<4sIQ")  # magic, head bytes, body bytes
MAGIC = b"FGG1"
LARGEST_HEAD_BYTES = 2**16
MOST_ARRAYS = 16
MOST_DIMENSIONS = 8
DTYPES = {
    str(np.dtype(name)): np.dtype(name).newbyteorder("<")
    for name in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
}
HEAD = {"kind": str, "config": dict, "arrays": dict}


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One message between relay and guard.

    Attributes:
        kind: of a request its Flower message type; of an answer ``reply``, ``refusal`` or
            ``failure``.
        config: the message's settings.
        arrays: the message's arrays.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def pack(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        MalformedInput: what it holds cannot be written: another type, or a head that is too long.
    """
    head = {
        "kind": frame.kind,
        "config": dict(frame.config),
        "arrays": {name: [str(a.dtype), list(a.shape)] for name, a in frame.arrays.items()},
    }
    try:
        _check_head(head)
        written = json.dumps(head, allow_nan=False).encode()
        if len(written) > LARGEST_HEAD_BYTES:
            raise ValueError(_too_long("head", len(written), LARGEST_HEAD_BYTES))
    except (ValueError, TypeError) as error:
        raise MalformedInput(str(error)) from error
    numbers = [np.ascontiguousarray(a, DTYPES[str(a.dtype)]) for a in frame.arrays.values()]
    prefix = PREFIX.pack(MAGIC, len(written), sum(array.nbytes for array in numbers))
    return b"".join([prefix, written, *(array.tobytes() for array in numbers)])


def incoming(largest_body_bytes: int) -> Generator[memoryview, None, Frame]:
    """Yield the buffers that a reader must fill, in order, and return the frame.

    Raises:
        MalformedInput: the bytes are no frame, or one that is too large; before a buffer is made.
    """
    prefix = bytearray(PREFIX.size)
    yield memoryview(prefix)
    magic, head_bytes, body_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise MalformedInput(f"frame begins with {magic!r}, must begin with {MAGIC!r}")
    if head_bytes > LARGEST_HEAD_BYTES:
        raise MalformedInput(_too_long("head", head_bytes, LARGEST_HEAD_BYTES))
    if body_bytes > largest_body_bytes:
        raise MalformedInput(_too_long("body", body_bytes, largest_body_bytes))
    written = bytearray(head_bytes)
    yield memoryview(written)
    try:
        head = json.loads(written.decode("utf-8"), parse_constant=_refuse_constant)
        _check_head(head)
        _check_sizes(head["arrays"], body_bytes)
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedInput(f"head of a frame: {error}") from error
    body = bytearray(body_bytes)
    if body_bytes:
        yield memoryview(body)
    return Frame(kind=head["kind"], config=head["config"], arrays=_arrays(head["arrays"], body))


def _check_head(head: object) -> None:
    if not isinstance(head, dict) or set(head) != set(HEAD):
        raise ValueError(f"must hold {sorted(HEAD)} and nothing else")
    for name, expected in HEAD.items():
        if type(head[name]) is not expected:
            raise TypeError(f"{name} is a {type(head[name]).__name__}, not a {expected.__name__}")
    for key, value in head["config"].items():
        if type(value) not in (bool, int, float, str):
            raise TypeError(f"{key!r} is a {type(value).__name__}, must be a number or a word")
    if len(head["arrays"]) > MOST_ARRAYS:
        raise ValueError(f"{len(head['arrays'])} arrays must be <= {MOST_ARRAYS}")
    for name, described in head["arrays"].items():
        _check_array(name, described)


def _check_array(name: str, described: object) -> None:
    if type(described) is not list or len(described) != 2:
        raise TypeError(f"{name!r} must be described by its dtype and its shape")
    dtype, shape = described
    if type(dtype) is not str or dtype not in DTYPES:
        raise TypeError(f"{name!r} has dtype {dtype!r}, must be one of {sorted(DTYPES)}")
    if type(shape) is not list or len(shape) > MOST_DIMENSIONS:
        raise TypeError(f"{name!r} must have a shape of at most {MOST_DIMENSIONS} dimensions")
    # Of an array with no numbers each length could be anything; NumPy holds 63 bits.
    if not all(type(length) is int and 0 <= length < 2**31 for length in shape):
        raise ValueError(f"{name!r} must have lengths of 0 .. 2^31 - 1")
    if math.prod(length for length in shape if length) >= 2**60:
        raise ValueError(f"{name!r} must hold fewer than 2^60 numbers")


def _check_sizes(described: Mapping[str, tuple[str, list[int]]], body_bytes: int) -> None:
    total = sum(math.prod(shape) * DTYPES[dtype].itemsize for dtype, shape in described.values())
    if total != body_bytes:
        raise ValueError(f"its arrays have {total} bytes, the body {body_bytes}")


def _arrays(
    described: Mapping[str, tuple[str, list[int]]], body: bytearray
) -> dict[str, np.ndarray]:
    """Return views of the body, which belongs to nobody else."""
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for name, (dtype, shape) in described.items():
        count = math.prod(shape)
        if count:
            arrays[name] = np.frombuffer(body, DTYPES[dtype], count, start).reshape(shape)
        else:
            arrays[name] = np.empty(shape, DTYPES[dtype])
        start += arrays[name].nbytes
    return arrays


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number that may be asked for")


def _too_long(part: str, size: int, largest: int) -> str:
    return f"{part} of a frame has {size} bytes, must be <= {largest}"
