import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord

from fed_gswgan.privacy.clipped_update import clip_update, update_event
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.wire.messages import MalformedReplyError
from fed_gswgan.wire.record_codec import (
    decode_update_reply,
    decode_update_request,
    encode_update_reply,
    encode_update_request,
)
from fed_gswgan.wire.update_messages import UpdateReply, UpdateRequest

EVENT = update_event(0.1, 0.01)
REQUEST = UpdateRequest(
    experiment_id="e", server_round=3, generator_P=np.arange(5, dtype=np.float32),
    critic_Q=np.arange(4, dtype=np.float32), clipping_bound=0.1, noise_stddev=0.01,
)  # fmt: skip


def reply():
    update = clip_update(np.arange(4, dtype=np.float32), EVENT)
    return encode_update_reply(UpdateReply(server_round=3, update=update))


def test_a_request_comes_back_as_it_was_sent():
    decoded = decode_update_request(encode_update_request(REQUEST))
    assert decoded.hash() == REQUEST.hash()
    assert np.array_equal(decoded.critic_Q, REQUEST.critic_Q)
    assert np.array_equal(decoded.generator_P, REQUEST.generator_P)


def test_a_reply_comes_back_as_it_was_sent():
    update = decode_update_reply(reply(), 3, 4, EVENT).update
    expected = clip_update(np.arange(4, dtype=np.float32), EVENT).values_P
    assert np.array_equal(update.values_P, expected)


def without(record, key):
    def spoil(records):
        del records[record][key]

    return spoil


def with_value(record, key, value):
    def spoil(records):
        records[record][key] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        without("arrays", "critic"),
        without("config", "noise-stddev"),
        with_value("config", "server-round", "3"),
        with_value("config", "learning-rate", 1.0),
        with_value("arrays", "critic", Array(np.zeros(4))),
        with_value("arrays", "labels", Array(np.zeros(4, np.float32))),
    ],
)
def test_a_request_with_a_field_missing_or_of_another_type_is_malformed(spoil):
    records = encode_update_request(REQUEST)
    spoil(records)
    with pytest.raises(MalformedInput):
        decode_update_request(records)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (with_value("config", "server-round", 4), "server-round=4 must be 3"),
        (with_value("config", "num-examples", 7), "num-examples"),
        (lambda r: r.__setitem__("metrics", MetricRecord({"loss": 1.0})), "metrics"),
        (
            lambda r: r.__setitem__(
                "arrays", ArrayRecord({"critic-update": Array(np.zeros(5, np.float32))})
            ),
            "shape",
        ),
    ],
)
def test_a_reply_that_is_not_what_was_asked_is_dropped_by_name(spoil, named):
    records = reply()
    spoil(records)
    with pytest.raises(MalformedReplyError, match=named):
        decode_update_reply(records, 3, 4, EVENT)
