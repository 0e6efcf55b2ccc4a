"""Replies that no honest client sends, drawn from a table: each is dropped, its reason named."""

import io
import logging
import pickle
import resource

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from flwr.supercore.task_identity import TaskIdentity

from fed_gswgan.config import SanitizerConfig
from fed_gswgan.privacy.honest_norm import largest_row_norm
from fed_gswgan.privacy.sanitizer import release_event
from fed_gswgan.wire.byte_meter import RoundBytes
from fed_gswgan.wire.codec import decode_reply, largest_coordinate
from fed_gswgan.wire.message_types import TRAIN
from server.reply_reading import read_replies

ROWS, ROUND = 8, 3
SHAPE = (ROWS, 1, 28, 28)
EVENT = release_event(ROWS, SanitizerConfig())
LIMIT = largest_coordinate(EVENT, "float32")
CLIENTS = {11: "a", 12: "b"}
GRADIENT = "sanitized-gradient"


@pytest.fixture(autouse=True)
def task_identity():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def decode(records):
    return decode_reply(records, ROUND, EVENT, SHAPE, "float32").gradient.values_BCHW


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


def forged(kind, draw):
    """Return an honest reply of node 11 with one thing changed, after Flower's serialization."""
    change = FORGED[kind][0](draw)
    parts = {"arrays": {GRADIENT: Array(honest(draw))}, "config": {"server-round": ROUND}, **change}
    node_id = parts.pop("node", 11)
    records = RecordDict()
    for name, part in parts.items():
        if isinstance(part, dict):
            part = ArrayRecord(part) if name == "arrays" else ConfigRecord(part)
        if part is not None:
            records[name] = part
    data = recorddict_to_proto(records).SerializeToString()
    content = recorddict_from_proto(RecordDictProto.FromString(data))
    return Message(content, reply_to=Message(RecordDict(), node_id, TRAIN))


def check(count, seed, caplog):
    draw = np.random.default_rng(seed)
    kinds = list(FORGED)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        caplog.clear()
        replies = read_replies(
            [forged(kind, draw)],
            CLIENTS,
            decode,
            RoundBytes(),
            ROUND,
        )
        assert (replies.values, replies.malformed, replies.failed) == ({}, 1, 0), kind
        (record,) = caplog.records
        reasons = FORGED[kind][1].split("|")
        assert any(reason in record.getMessage() for reason in reasons), record.getMessage()


def test_the_honest_reply_that_they_are_made_from_is_taken(caplog):
    draw = np.random.default_rng(0)
    FORGED["honest"] = (lambda draw: {}, "")
    try:
        message = forged("honest", draw)
    finally:
        del FORGED["honest"]
    replies = read_replies(
        [message],
        CLIENTS,
        decode,
        RoundBytes(),
        ROUND,
    )
    assert list(replies.values) == ["a"]


def test_every_kind_of_forged_reply_is_dropped_with_its_reason(caplog):
    with caplog.at_level(logging.WARNING):
        check(10 * len(FORGED), seed=0, caplog=caplog)


@pytest.mark.slow
def test_ten_thousand_forged_replies_are_dropped_and_memory_stays_flat(caplog):
    with caplog.at_level(logging.WARNING):
        check(1_000, seed=1, caplog=caplog)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        check(9_000, seed=2, caplog=caplog)
    grown_kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kilobytes < 20_000
