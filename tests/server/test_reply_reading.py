import logging

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)

from fed_gswgan.privacy.refusals import BudgetExhausted
from fed_gswgan.privacy.sanitizer import SanitizedGradient, release_event
from fed_gswgan.privacy_config import SanitizerConfig
from fed_gswgan.wire.byte_meter import RoundBytes, payload_bytes
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.messages import TrainReply
from fed_gswgan.wire.record_codec import decode_reply, encode_reply
from server.reply_reading import read_replies

EVENT = release_event(2, SanitizerConfig())
CLIENTS = {11: "a", 12: "b", 13: "c", 14: "d"}

pytestmark = pytest.mark.usefixtures("task_identity")


def request_to(node_id):
    return Message(RecordDict(), node_id, TRAIN)


def records(value=0.0, server_round=3):
    values = np.full((2, 1, 28, 28), value, dtype=np.float32)
    gradient = SanitizedGradient(values_BCHW=values, event=EVENT)
    return encode_reply(TrainReply(server_round=server_round, gradient=gradient), "float32")


def reply(node_id, content):
    return Message(content, reply_to=request_to(node_id))


def refusal(node_id, reason="max-epsilon"):
    return Message(Error(BudgetExhausted.code, reason), reply_to=request_to(node_id))


def read(messages, counted=None):
    def decode(content):
        return decode_reply(content, 3, EVENT, (2, 1, 28, 28), "float32").gradient.values_BCHW

    return read_replies(messages, CLIENTS, decode, counted or RoundBytes(), server_round=3)


def spoiled(spoil):
    content = records()
    spoil(content)
    return content


def test_well_formed_replies_are_there_by_client_id():
    replies = read([reply(12, records(0.5)), reply(11, records(-1.0))])
    assert set(replies.values) == {"a", "b"}
    assert (replies.values["a"] == -1.0).all()
    assert (replies.values["b"] == 0.5).all()
    assert (replies.failed, replies.malformed, replies.arrived) == (0, 0, 2)


def test_received_failed_and_malformed_replies_are_counted_apart():
    messages = [
        reply(11, records()), refusal(12), reply(13, records(server_round=2)), refusal(14),
    ]  # fmt: skip
    replies = read(messages)
    assert list(replies.values) == ["a"]
    assert (replies.failed, replies.malformed, replies.arrived) == (2, 1, 4)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        records(server_round=4),
        records(np.nan),
        spoiled(lambda r: r.update({"metrics": MetricRecord({"loss": 1.0})})),
        spoiled(lambda r: r["arrays"].update({"weights": Array(np.zeros(3))})),
        spoiled(
            lambda r: r["arrays"].update(
                {"sanitized-gradient": Array("float32", (2,), "numpy.ndarray", b"")}
            )
        ),
        spoiled(lambda r: r["config"].update({"note": ""})),
        spoiled(lambda r: r["config"].update({"note": []})),
        RecordDict({"config": ConfigRecord({"server-round": 3})}),
    ],
)
def test_nothing_a_client_sends_stops_the_round(content):
    replies = read([reply(11, content), reply(12, records())])
    assert list(replies.values) == ["b"]
    assert replies.malformed == 1


def test_bytes_are_counted_for_malformed_replies_too_and_not_for_errors():
    counted = RoundBytes()
    stale = records(server_round=2)
    read([reply(11, records()), reply(12, stale), refusal(13)], counted)
    assert counted.uplink == {"a": payload_bytes(records()), "b": payload_bytes(stale)}
    assert counted.replies == 2


@pytest.mark.parametrize("kind", ["node gone", "reply expired", "message unknown"])
def test_an_error_of_the_superlink_in_a_clients_place_counts_as_failed(kind):
    request = request_to(11).metadata
    message = {
        "node gone": lambda: create_message_error_unavailable_res_message(request, "node_unavail"),
        "reply expired": lambda: create_message_error_unavailable_res_message(
            request, "msg_unavail"
        ),
        "message unknown": lambda: create_message_error_unavailable_ins_message("x", run_id=1),
    }[kind]()
    assert message.metadata.src_node_id not in CLIENTS
    replies = read([message, reply(12, records())])
    assert (list(replies.values), replies.failed) == (["b"], 1)


def test_every_dropped_reply_is_said_with_round_client_and_reason(caplog):
    with caplog.at_level(logging.WARNING):
        read([refusal(11, "budget spent"), reply(12, records(server_round=2))])
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "round 3: a: budget spent"
    assert second.startswith("round 3: b: reply dropped: server-round=2 must be 3")


def test_no_reply_at_all_is_a_round_of_nothing():
    replies = read([])
    assert (replies.values, replies.arrived) == ({}, 0)


def test_a_node_that_was_not_asked_is_dropped_and_its_bytes_are_nobodys(caplog):
    counted = RoundBytes()
    replies = read([reply(99, records()), reply(11, records())], counted)
    assert (list(replies.values), replies.malformed) == (["a"], 1)
    assert set(counted.uplink) == {"a"}
    assert "node 99: reply dropped: nobody asked it" in caplog.text


def test_of_two_answers_of_one_client_the_first_counts(caplog):
    replies = read([reply(11, records(0.5)), reply(11, records(-0.5))])
    assert (replies.values["a"] == 0.5).all()
    assert (len(replies.values), replies.malformed) == (1, 1)
    assert "a: reply dropped: it answered already" in caplog.text


def test_what_a_stranger_says_can_neither_forge_nor_fill_the_log(caplog):
    read([refusal(11, "spent\nround 4: b: all is well" + "x" * 10_000)])
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 400
