"""Replies as Flower serialises them, from a SuperLink that holds what devices uploaded so far.

Only the transport is replaced.
"""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.grid.http_grid import HttpGrid

from fed_gswgan.wire import hardened_grid
from fed_gswgan.wire.hardened_grid import HardenedGrid, hardened

pytestmark = pytest.mark.usefixtures("task_identity")


class SuperLink:
    """What the Grid talks to: replies are announced once, their parts kept until confirmed."""

    def __init__(self):
        self.announced, self.parts, self.confirmed = [], {}, []
        self.delivered = set()

    def upload(self, reply, uploaded=lambda object_: True):
        """Announce a reply; those of its parts that are not uploaded are there as promises."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        self.announced.append((message_to_proto(reply), get_object_tree(reply)))
        for object_id, object_ in get_all_nested_objects(reply).items():
            self.parts[object_id] = object_.deflate() if uploaded(object_) else None
        return reply.object_id

    def PullMessages(self, request):
        asked = [
            a for a in self.announced if a[0].metadata.reply_to_message_id in request.message_ids
        ]
        self.announced = [a for a in self.announced if a not in asked]
        assert not self.delivered & set(request.message_ids)  # Flower says that there is no such
        self.delivered |= {proto.metadata.reply_to_message_id for proto, _ in asked}
        return PullAppMessagesResponse(
            messages_list=[proto for proto, _ in asked],
            message_object_trees=[tree for _, tree in asked],
        )

    def PullObject(self, request):
        content = self.parts.get(request.object_id, b"missing")
        return PullObjectResponse(
            object_found=request.object_id in self.parts,
            object_available=content is not None,
            object_content=content or b"",
        )

    def ConfirmMessageReceived(self, request):
        self.confirmed.append(request.message_object_id)


@pytest.fixture
def superlink():
    return SuperLink()


@pytest.fixture
def grid(superlink):
    flower = HttpGrid(insecure=True, token="token")
    flower._client = superlink
    flower._run = SimpleNamespace(run_id=1)
    flower._try_push_messages = lambda run_id, messages: [m.metadata.message_id for m in messages]
    flower.__class__ = type("Flower", (HttpGrid,), {"run": property(lambda self: self._run)})
    return HardenedGrid(flower)


def asked(grid, count=3, ttl=60.0):
    content = RecordDict({"config": ConfigRecord({"ask": "something"})})
    messages = [Message(content, 10 + n, "query.something", ttl=ttl) for n in range(count)]
    assert list(grid.push_messages(messages)) == [m.metadata.message_id for m in messages]
    return messages


def reply_to(message, value=1.0, node_id=None):
    array = Array(np.full(4, value, dtype=np.float32))
    content = RecordDict(
        {"arrays": ArrayRecord({"a": array}), "config": ConfigRecord({"x": value})}
    )
    reply = Message(content, reply_to=message)
    if node_id is not None:
        reply.metadata.__dict__["_src_node_id"] = node_id
    return reply


def pulled(grid, messages):
    return {
        r.metadata.reply_to_message_id: r
        for r in grid.pull_messages([m.metadata.message_id for m in messages])
    }


def test_a_whole_reply_comes_once_as_it_was_sent_and_is_confirmed(grid, superlink):
    messages = asked(grid)
    ids = [superlink.upload(reply_to(message, value)) for value, message in enumerate(messages)]

    replies = pulled(grid, messages)

    for value, message in enumerate(messages):
        reply = replies[message.metadata.message_id]
        assert reply.metadata.src_node_id == 10 + value
        assert reply.content["arrays"]["a"].numpy().tolist() == [value] * 4
    assert sorted(superlink.confirmed) == sorted(ids)


def test_a_reply_that_is_announced_and_not_uploaded_holds_nobody_up(grid, superlink):
    slow, quick = asked(grid, 2)
    late = reply_to(slow, 1.0)
    superlink.upload(late, uploaded=lambda object_: not isinstance(object_, Array | ConfigRecord))
    superlink.upload(reply_to(quick, 2.0))

    started = time.monotonic()
    assert set(pulled(grid, [slow, quick])) == {quick.metadata.message_id}
    assert time.monotonic() - started < 1
    assert pulled(grid, [slow]) == {}

    superlink.parts |= {i: o.deflate() for i, o in get_all_nested_objects(late).items()}
    assert pulled(grid, [slow])[slow.metadata.message_id].content["config"]["x"] == 1


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b""])
@pytest.mark.parametrize("kind", [ConfigRecord, Array, ArrayRecord, RecordDict, Message])
def test_bytes_that_are_no_reply_are_that_nodes_failure_alone(grid, superlink, kind, body):
    broken, honest = asked(grid, 2)
    reply = reply_to(broken, 1.0)
    superlink.upload(reply)
    superlink.upload(reply_to(honest, 2.0))
    for object_id, object_ in get_all_nested_objects(reply).items():
        if type(object_) is kind:
            head = object_.deflate().split(b"\x00")[0]
            superlink.parts[object_id] = head + b"\x00" + body

    replies = pulled(grid, [broken, honest])

    assert not replies[honest.metadata.message_id].has_error()
    failure = replies[broken.metadata.message_id]
    assert failure.has_error() or (kind, body) in EMPTY_IS_VALID
    assert failure.metadata.src_node_id == 10


EMPTY_IS_VALID = {(ConfigRecord, b"")}  # no setting at all: the reply check refuses it


def test_a_part_that_was_announced_and_is_gone_is_a_failure(grid, superlink):
    (message,) = asked(grid, 1)
    superlink.upload(reply_to(message))
    superlink.parts.clear()

    assert "not there" in pulled(grid, [message])[message.metadata.message_id].error.reason


def test_a_reply_in_anothers_name_is_a_failure_of_the_node_that_was_asked(grid, superlink):
    victim, attacker = asked(grid, 2)
    superlink.upload(reply_to(attacker, node_id=10))

    replies = pulled(grid, [victim, attacker])

    assert set(replies) == {attacker.metadata.message_id}
    failure = replies[attacker.metadata.message_id]
    assert failure.metadata.src_node_id == 11
    assert "says it is node 10's; node 11 was asked" in failure.error.reason


def test_a_reply_that_is_too_large_is_a_failure(grid, superlink, monkeypatch):
    monkeypatch.setattr(hardened_grid, "LARGEST_REPLY_BYTES", 100)
    (message,) = asked(grid, 1)
    superlink.upload(reply_to(message))

    reason = pulled(grid, [message])[message.metadata.message_id].error.reason
    assert "must be <= 100" in reason


def test_a_reply_in_too_many_parts_is_a_failure_before_any_is_fetched(grid, superlink, monkeypatch):
    monkeypatch.setattr(hardened_grid, "MOST_PARTS", 3)
    (message,) = asked(grid, 1)
    reply_id = superlink.upload(reply_to(message), uploaded=lambda object_: False)

    reason = pulled(grid, [message])[message.metadata.message_id].error.reason
    assert "parts, must have at most 3" in reason
    assert superlink.confirmed == [reply_id]  # so that the SuperLink lets go of it


def test_nothing_is_asked_of_the_superlink_for_a_message_that_nobody_can_answer_any_more(
    grid, superlink
):
    (old,) = asked(grid, 1, ttl=0.05)
    time.sleep(0.1)
    asked(grid, 1)
    seen = []
    superlink.PullMessages = lambda request: (
        seen.extend(request.message_ids) or PullAppMessagesResponse()
    )

    assert pulled(grid, [old]) == {}
    assert seen == []


def test_the_superlinks_error_for_a_node_that_is_gone_comes_through(grid, superlink):
    (message,) = asked(grid, 1)
    gone = Message(Error(3, "the node is gone"), reply_to=message)
    gone.metadata.__dict__["_src_node_id"] = 1
    superlink.upload(gone)

    assert pulled(grid, [message])[message.metadata.message_id].error.reason == "the node is gone"


def test_what_nobody_was_asked_for_is_dropped_and_what_is_over_forgotten(grid, superlink):
    (old,) = asked(grid, 1, ttl=0.05)
    superlink.upload(reply_to(old))
    time.sleep(0.1)
    asked(grid, 1)

    assert pulled(grid, [old]) == {}
    assert (len(grid._asked), grid._arriving) == (1, {})


def test_a_simulations_grid_stays_as_it_is(grid):
    assert hardened(grid) is grid
    assert isinstance(hardened(HttpGrid(insecure=True, token="token")), HardenedGrid)
