import io
import logging

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)

from client import virtual_device
from client.app import app as client_app
from fed_gswgan.privacy.refusals import BudgetExhausted
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.wire.message_types import CLIENT_FAILED, REGISTER, TRAIN, UPDATE
from fed_gswgan.wire.record_codec import encode_reply
from fed_gswgan.wire.release_guard import release_guard

SECRET = "17 images of a 3"
REASON = "client failed; see its own log"
GRADIENT = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
WEIGHTS = np.arange(5, dtype=np.float32)
CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})

pytestmark = pytest.mark.usefixtures("task_identity")


def train_request(codec="float32", dct_frequencies=0):
    arrays = {"samples": Array(np.zeros_like(GRADIENT)), "labels": Array(np.zeros(2, np.uint8))}
    written = {"uplink-codec": codec, "dct-frequencies": dct_frequencies}
    config = ConfigRecord({"server-round": 3, "experiment-id": "experiment"} | written)
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "config": config}), 2, TRAIN)


def asked_in(codec, dct_frequencies=0):
    return lambda: train_request(codec, dct_frequencies)


def update_request():
    arrays = {"critic": Array(WEIGHTS), "generator": Array(np.zeros(7, np.float32))}
    config = ConfigRecord({"server-round": 3, "experiment-id": "experiment"})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "config": config}), 2, UPDATE)


def register_request():
    return Message(RecordDict(), 2, REGISTER)


def a_reply(array=None, arrays=None, config=None, **records):
    """Return a right reply to ``train_request``; each keyword replaces, or adds, something."""
    gradient = array or Array(GRADIENT)
    return RecordDict(
        {
            "arrays": ArrayRecord({"sanitized-gradient": gradient} | (arrays or {})),
            "config": ConfigRecord({"server-round": 3} | (config or {})),
        }
        | records
    )


def an_update(array=None, name="critic-update", server_round=3):
    return RecordDict(
        {
            "arrays": ArrayRecord({name: array or Array(WEIGHTS)}),
            "config": ConfigRecord({"server-round": server_round}),
        }
    )


def an_identity(**config):
    return RecordDict({"config": ConfigRecord({"client-id": "client-00000"} | config)})


def passed(request, content):
    """Return what leaves when the app answers ``request`` with ``content``."""
    answer = Message(content, reply_to=request)
    return release_guard(request, CONTEXT, lambda message, context: answer), answer


def in_bytes(array=GRADIENT, more=b"", **fields):
    """Return the array as Flower writes it, with more bytes behind it or other fields."""
    written = Array(array)
    known = {"dtype": written.dtype, "shape": written.shape, "stype": written.stype}
    return Array(**known | {"data": written.data + more} | fields)


def archive():
    file = io.BytesIO()
    np.savez(file, gradient=GRADIENT)
    return file.getvalue()


RIGHT = {
    "float32": (train_request, a_reply()),
    "float16": (asked_in("float16"), a_reply(Array(GRADIENT.astype(np.float16)))),
    "uint8": (asked_in("uint8"), a_reply(Array(GRADIENT.astype(np.uint8)))),
    "1 bit": (asked_in("uint1"), a_reply(Array(np.zeros((2, 98), np.uint8)))),
    "frequencies": (asked_in("float32", 8), a_reply(Array(GRADIENT[:, :, :8, :8].copy()))),
    "1 bit a frequency": (asked_in("uint1", 8), a_reply(Array(np.zeros((2, 8), np.uint8)))),
    "columns first": (train_request, a_reply(Array(np.asfortranarray(GRADIENT)))),
    "an update": (update_request, an_update()),
    "an id": (register_request, an_identity()),
    "the longest id": (register_request, an_identity(**{"client-id": 64 * "x"})),
}

HELD_BACK = {
    "a metric": a_reply(metrics=MetricRecord({"loss": 0.5})),
    "a count of images": a_reply(metrics=MetricRecord({"num-examples": 17})),
    "a count in the config": a_reply(config={"num-examples": 17}),
    "a word in the config": a_reply(config={"note": SECRET}),
    "a second config": a_reply(notes=ConfigRecord({"note": SECRET})),
    "a second record of arrays": a_reply(more=ArrayRecord({"critic-weights": Array(GRADIENT)})),
    "an array beside the gradient": a_reply(arrays={"critic-weights": Array(GRADIENT)}),
    "an array in the gradient's place": RecordDict(
        {
            "arrays": ArrayRecord({"images": Array(GRADIENT)}),
            "config": ConfigRecord({"server-round": 3}),
        }
    ),
    "metrics in the config's place": RecordDict(
        {
            "arrays": ArrayRecord({"sanitized-gradient": Array(GRADIENT)}),
            "config": MetricRecord({"server-round": 3}),
        }
    ),
    "no gradient": RecordDict({"config": ConfigRecord({"server-round": 3})}),
    "no config": RecordDict({"arrays": ArrayRecord({"sanitized-gradient": Array(GRADIENT)})}),
    "nothing": RecordDict(),
    "another round": a_reply(config={"server-round": 4}),
    "a round in words": a_reply(config={"server-round": "3"}),
    "a round with a fraction": a_reply(config={"server-round": 3.0}),
    "a row too few": a_reply(Array(GRADIENT[:1])),
    "a row too many": a_reply(Array(np.concatenate([GRADIENT, GRADIENT[:1]]))),
    "flat rows": a_reply(Array(GRADIENT.reshape(2, 784))),
    "float64": a_reply(Array(GRADIENT.astype(np.float64))),
    "int64": a_reply(Array(GRADIENT.astype(np.int64))),
    "another codec": a_reply(Array(GRADIENT.astype(np.float16))),
    "another basis": a_reply(Array(GRADIENT[:, :, :8, :8].copy())),
    "numbers the other way round": a_reply(Array(GRADIENT.astype(">f4"))),
    "bytes behind the gradient": a_reply(in_bytes(more=SECRET.encode())),
    "a word in place of the dtype": a_reply(in_bytes(dtype=SECRET)),
    "numbers in place of the shape": a_reply(in_bytes(shape=(17, 3))),
    "a word in place of the format": a_reply(in_bytes(stype=SECRET)),
    "bytes that are no array": a_reply(in_bytes(data=SECRET.encode())),
    "no bytes": a_reply(in_bytes(data=b"")),
    "an archive": a_reply(in_bytes(data=archive())),
    "an update": an_update(),
    "an id": an_identity(),
}

HELD_BACK_UPDATES = {
    "a gradient": a_reply(),
    "the critic itself": an_update(name="critic"),
    "another round": an_update(server_round=4),
    "another length": an_update(Array(WEIGHTS[:4])),
    "the generator's length": an_update(Array(np.zeros(7, np.float32))),
    "float16": an_update(Array(WEIGHTS.astype(np.float16))),
    "a metric": RecordDict({**an_update(), "metrics": MetricRecord({"num-examples": 17})}),
    "bytes behind the update": an_update(in_bytes(WEIGHTS, more=SECRET.encode())),
}

HELD_BACK_IDENTITIES = {
    "a count beside the id": an_identity(images=17),
    "a number for an id": an_identity(**{"client-id": 17}),
    "a long id": an_identity(**{"client-id": 65 * "x"}),
    "a metric": RecordDict({"config": MetricRecord({"client-id": 17})}),
    "a record beside the config": RecordDict(
        {"config": ConfigRecord({"client-id": "x"}), "metrics": MetricRecord({"images": 17})}
    ),
    "another word than the id": RecordDict({"config": ConfigRecord({"writer": "x"})}),
    "nothing": RecordDict(),
    "a gradient": a_reply(),
}


def assert_held_back(request, content, caplog):
    """What leaves is an error that says nothing of the reply; the device's own log has why."""
    with caplog.at_level(logging.ERROR, logger="fed_gswgan.wire.release_guard"):
        reply, _ = passed(request, content)
    assert reply.has_error()
    assert not reply.has_content()
    assert (reply.error.code, reply.error.reason) == (CLIENT_FAILED, REASON)
    assert "a reply was held back: " in caplog.text


@pytest.mark.parametrize(("request_of", "content"), RIGHT.values(), ids=RIGHT)
def test_a_reply_that_is_what_was_asked_for_leaves_as_it_is(request_of, content):
    reply, answer = passed(request_of(), content)
    assert reply is answer
    assert not reply.has_error()


@pytest.mark.parametrize("content", HELD_BACK.values(), ids=HELD_BACK)
def test_anything_but_a_gradient_is_held_back_from_a_train_reply(content, caplog):
    assert_held_back(train_request(), content, caplog)


@pytest.mark.parametrize("content", HELD_BACK_UPDATES.values(), ids=HELD_BACK_UPDATES)
def test_anything_but_an_update_is_held_back_where_one_was_asked_for(content, caplog):
    assert_held_back(update_request(), content, caplog)


@pytest.mark.parametrize("content", HELD_BACK_IDENTITIES.values(), ids=HELD_BACK_IDENTITIES)
def test_anything_but_an_id_is_held_back_from_a_registration(content, caplog):
    assert_held_back(register_request(), content, caplog)


@pytest.mark.parametrize("kind", ["train", "train.other", "evaluate", "query", "query.other"])
@pytest.mark.parametrize("content", [a_reply(), an_identity()], ids=["gradient", "id"])
def test_no_other_kind_of_message_is_answered(kind, content, caplog):
    request = Message(train_request().content, 2, kind)
    assert_held_back(request, content, caplog)


@pytest.mark.parametrize("missing", ["arrays", "config"])
def test_a_request_that_asks_for_nothing_is_answered_with_no_gradient(missing, caplog):
    request = train_request()
    del request.content[missing]
    assert_held_back(request, a_reply(), caplog)


def test_an_error_leaves_as_it_is():
    request = train_request()
    error = Error(BudgetExhausted.code, "BUDGET_EXHAUSTED: max-epsilon=3 would be passed")
    answer = Message(error, reply_to=request)
    assert release_guard(request, CONTEXT, lambda message, context: answer) is answer


def test_an_app_that_changes_the_request_does_not_change_what_may_answer_it():
    def change_and_answer(message, context):
        message.content["arrays"]["samples"] = Array(np.zeros((17, 1, 28, 28), np.float32))
        message.content["config"]["server-round"] = 17
        rows = Array(np.zeros((17, 1, 28, 28), np.float32))
        return Message(a_reply(rows, config={"server-round": 17}), reply_to=message)

    reply = release_guard(train_request(), CONTEXT, change_and_answer)
    assert reply.error.reason == REASON


def test_a_metric_planted_in_the_real_app_never_leaves(small_run, monkeypatch):
    replies = []

    def encode_with_a_count(reply, codec):
        records = encode_reply(reply, codec)
        records["metrics"] = MetricRecord({"num-examples": 17})
        return records

    def recorded(message, context):
        reply = client_app(message, context)
        if message.metadata.message_type == TRAIN:
            replies.append(reply)
        return reply

    monkeypatch.setattr(virtual_device, "encode_reply", encode_with_a_count)
    folder = small_run(rounds=1, app=recorded)
    assert [reply.has_content() for reply in replies] == [False] * 3
    assert {(reply.error.code, reply.error.reason) for reply in replies} == {
        (CLIENT_FAILED, REASON)
    }
    (line,) = read_rounds(folder)
    assert (line["received"], line["failed"], line["stepped"]) == (0, 3, False)
