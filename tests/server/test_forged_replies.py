"""Replies that no honest client sends, drawn from a table: each is dropped, its reason named."""

import logging
import resource

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from fed_gswgan.wire.byte_meter import RoundBytes
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.record_codec import decode_reply
from server.reply_reading import read_replies
from tests.server.forged_replies import (
    EVENT,
    FORGED,
    ROUND,
    SHAPE,
    forged_parts,
    forged_records,
    named,
)

CLIENTS = {11: "a", 12: "b"}

pytestmark = pytest.mark.usefixtures("task_identity")


def decode(records):
    return decode_reply(records, ROUND, EVENT, SHAPE, "float32").gradient.values_BCHW


def forged(kind, draw):
    """Return a reply of node 11, after Flower's serialization."""
    parts = forged_parts(kind, draw)
    node_id = parts.pop("node", 11)
    data = recorddict_to_proto(forged_records(parts)).SerializeToString()
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
        assert named(kind, record.getMessage()), record.getMessage()


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
