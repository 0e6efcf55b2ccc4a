"""Replies that no honest client sends: a table of named forgeries, and what the log says of each.

A line draws its variant from the generator it is given. A reply has 8 rows; it stands alone, so
that an app which Flower bundles can hold it.
"""

import io
import pickle
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fed_gswgan.privacy.events import largest_row_norm
from fed_gswgan.privacy.sanitizer import release_event
from fed_gswgan.privacy_config import SanitizerConfig
from fed_gswgan.wire.codec import largest_coordinate

ROWS, ROUND = 8, 3
SHAPE = (ROWS, 1, 28, 28)
EVENT = release_event(ROWS, SanitizerConfig())
LIMIT = largest_coordinate(EVENT, "float32")
GRADIENT = "sanitized-gradient"


def honest(draw):
    return draw.normal(size=SHAPE).astype(np.float32) * 2.14


def gradient(values):
    return {"arrays": {GRADIENT: Array(values)}}


def raw(data, shape=SHAPE, dtype="float32", stype="numpy.ndarray"):
    return {"arrays": {GRADIENT: Array(dtype, shape, stype, data)}}


def npy(values, **options):
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def npz(values):
    file = io.BytesIO()
    np.savez_compressed(file, values=values)
    return file.getvalue()


def lying_header(draw):
    """A header that promises a hundred gigabytes, and a few numbers."""
    data = npy(np.zeros(4, np.float32))
    return raw(data.replace(b"(4,)", b"(25000000000,)").replace(b" " * 10 + b"\n", b"\n"))


def spoilt(draw):
    values = honest(draw)
    values.flat[draw.integers(values.size)] = draw.choice([np.nan, np.inf, -np.inf])
    return gradient(values)


def too_large(draw):
    values = honest(draw)
    values.flat[draw.integers(values.size)] = (
        LIMIT * draw.choice([-1, 1]) * 10 ** draw.uniform(0.01, 30)
    )
    return gradient(values)


def long_row(draw):
    values = honest(draw)
    values[draw.integers(ROWS)] = LIMIT * draw.choice([-1, 1], SHAPE[1:])
    return gradient(values)


def long_rows(draw):
    """Each as long as one honest row may be, which eight of them never are at once."""
    values = honest(draw)
    norms = np.linalg.norm(values.reshape(ROWS, -1), axis=1).reshape(ROWS, 1, 1, 1)
    return gradient(values / norms * np.float32(0.999 * largest_row_norm(EVENT, 784)))


def resized(draw):
    shape = list(SHAPE)
    shape[draw.integers(4)] += draw.choice([-1, 1])
    return gradient(np.zeros(shape, np.float32))


def retyped(draw):
    dtype = draw.choice(["float16", "int32", "uint8", "bool", ">f4", "S4"])
    return gradient(np.zeros(SHAPE, dtype))


def truncated(draw):
    data = npy(honest(draw))
    return raw(data[: draw.integers(0, len(data))])


def noise_bytes(draw):
    return raw(draw.bytes(int(draw.integers(1, 2000))))


def other_round(draw):
    value = draw.choice([0, ROUND - 1, ROUND + 1, -ROUND, 2**62])
    return {"config": {"server-round": int(value)}}


def other_kind_of_round(draw):
    value = [True, float(ROUND), str(ROUND), b"3", [ROUND], ["3"]][draw.integers(6)]
    return {"config": {"server-round": value}}


def many_arrays(draw):
    return {"arrays": {f"a{n}": Array(np.zeros(20, np.float32)) for n in range(200)}}


# What is changed in an honest reply, and what the log says of it.
FORGED = {
    "resized": (resized, "has shape|arrays of"),
    "no numbers at all": (lambda d: gradient(np.zeros((0, 1, 28, 28), np.float32)), "has shape"),
    "one number": (lambda d: gradient(np.ones((), np.float32)), "has shape"),
    "retyped": (retyped, "has dtype|arrays of"),
    "objects": (lambda d: raw(npy(np.array([{}]), allow_pickle=True)), "cannot be read"),
    "a pickle": (lambda d: raw(pickle.dumps([1.0])), "cannot be read"),
    "an archive": (lambda d: raw(npz(np.zeros((999, 784)))), "is an archive|arrays of"),
    "a header that lies": (lying_header, "cannot be read"),
    "another shape than said": (lambda d: raw(npy(honest(d)), (1, *SHAPE)), "says shape"),
    "another serialization": (lambda d: raw(npy(honest(d)), stype="torch"), "cannot be read"),
    "truncated": (truncated, "cannot be read"),
    "noise for bytes": (noise_bytes, "cannot be read"),
    "megabytes": (lambda d: raw(bytes(3_000_000)), "arrays of 3000000 bytes must be <="),
    "many arrays": (many_arrays, "fields ['a0'"),
    "not finite": (spoilt, "must be finite"),
    "a huge number": (too_large, "must be finite and within"),
    "a long row": (long_row, "a row of norm"),
    "rows long together": (long_rows, "has norm"),
    "another round": (other_round, "server-round="),
    "another kind of round": (other_kind_of_round, "server-round is a"),
    "no round": (lambda d: {"config": {}}, "not a reply's"),
    "a loss beside it": (lambda d: {"config": {"server-round": ROUND, "loss": 0.1}}, "not a reply"),
    "a second array": (
        lambda d: {"arrays": {GRADIENT: Array(honest(d)), "b": Array(np.zeros(2))}},
        "not a reply's",
    ),
    "another name": (lambda d: {"arrays": {"gradient": Array(honest(d))}}, "not a reply's"),
    "metrics": (lambda d: {"metrics": MetricRecord({"num-examples": 12})}, "must be arrays and"),
    "nothing": (lambda d: {"arrays": None, "config": None}, "must be arrays and config"),
    "no arrays": (lambda d: {"arrays": None}, "must be arrays and config"),
    "settings for arrays": (lambda d: {"arrays": ConfigRecord({"x": 1})}, "must be an ArrayRecord"),
    "a stranger": (lambda d: {"node": int(d.integers(100, 2**63))}, "nobody asked it"),
}


# By two devices, one a round each, in this order.
SENT_OVER_GRPC = (
    "resized", "retyped", "a pickle", "a header that lies", "megabytes", "not finite",
    "a huge number", "a long row", "another round", "a loss beside it",
)  # fmt: skip


def forged_parts(kind: str, draw: Any, server_round: int = ROUND) -> dict[str, Any]:
    """Return what an honest reply to a round holds, with one thing changed."""
    change = FORGED[kind][0](draw)
    config = {"server-round": server_round}
    return {"arrays": {GRADIENT: Array(honest(draw))}, "config": config, **change}


def forged_records(parts: dict[str, Any]) -> RecordDict:
    """Return such parts as Flower's records."""
    records = RecordDict()
    for name, part in parts.items():
        if isinstance(part, dict):
            part = ArrayRecord(part) if name == "arrays" else ConfigRecord(part)
        if part is not None:
            records[name] = part
    return records


def named(kind: str, line: str) -> bool:
    """Tell whether a line of the log gives the reason that is expected."""
    return any(reason in line for reason in FORGED[kind][1].split("|"))
