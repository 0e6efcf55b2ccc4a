import time

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from server.exchange import exchange

NEVER = 10**9

pytestmark = pytest.mark.usefixtures("task_identity")


class LateGrid(Grid):
    """Message ``i`` is answered from the ``late[i]``-th pull on."""

    def __init__(self, late):
        self.late = late
        self.pulls = 0
        self.pending = {}

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def get_node_ids(self):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError

    def push_messages(self, messages):
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message-{number}"
            self.pending[f"message-{number}"] = (self.late[number], message)
        return list(self.pending)

    def pull_messages(self, message_ids):
        self.pulls += 1
        here = [i for i in list(message_ids) if self.pending[i][0] <= self.pulls]
        return [Message(RecordDict(), reply_to=self.pending.pop(i)[1]) for i in here]


def messages(count):
    content = RecordDict({"config": ConfigRecord({"ask": "something"})})
    return [Message(content, 10 + number, "query.something") for number in range(count)]


def answered(replies):
    return sorted(reply.metadata.src_node_id for reply in replies)


def test_replies_that_are_there_at_once_cost_one_pull_and_no_pause():
    grid = LateGrid([1, 1, 1])
    assert answered(exchange(grid, messages(3), timeout_seconds=60)) == [10, 11, 12]
    assert grid.pulls == 1


def test_late_replies_are_waited_for():
    grid = LateGrid([1, 4, 9])
    assert answered(exchange(grid, messages(3), timeout_seconds=60)) == [10, 11, 12]
    assert grid.pulls == 9


def test_after_the_time_out_what_came_is_returned():
    grid = LateGrid([1, NEVER, 2])
    started = time.monotonic()
    replies = exchange(grid, messages(3), timeout_seconds=0.1)
    assert answered(replies) == [10, 12]
    assert 0.1 <= time.monotonic() - started < 2
    assert list(grid.pending) == ["message-1"]  # left where it is


def test_an_interrupt_ends_the_waiting_with_what_came():
    grid = LateGrid([1, NEVER])
    replies = exchange(grid, messages(2), timeout_seconds=60, interrupted=lambda: grid.pulls >= 3)
    assert answered(replies) == [10]
    assert grid.pulls == 3


def test_nothing_is_pulled_where_nothing_was_asked():
    grid = LateGrid([])
    assert exchange(grid, [], timeout_seconds=60) == []
    assert grid.pulls == 0


class StrangeGrid(LateGrid):
    """Could not push the first message, and gives every reply twice and one nobody asked for."""

    def push_messages(self, messages):
        pushed = super().push_messages(messages)
        self.pending.pop(pushed[0])
        return [None, *pushed[1:]]

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        request = Message(RecordDict(), 99, "query.something")
        request.metadata.__dict__["_message_id"] = "message-99"
        return replies * 2 + [Message(RecordDict(), reply_to=request)]


def test_each_message_has_one_reply_at_most_and_strangers_have_none():
    grid = StrangeGrid([1, 1, 2])
    assert answered(exchange(grid, messages(3), timeout_seconds=60)) == [11, 12]
