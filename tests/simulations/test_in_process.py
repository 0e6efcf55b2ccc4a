"""The Grid without Ray, in this process and over workers, and Flower's parts that it relies on."""

import os
import time
from contextlib import closing

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from simulations import in_process
from simulations.in_process import FIRST_NODE_ID, RUN_ID, SERVER_NODE_ID, InProcessGrid

app = ClientApp()


@app.query("echo")
def echo(message, context):
    time.sleep(message.content["config"]["seconds"])
    config = {"pid": os.getpid(), "moment": time.time(), **context.node_config}
    return Message(
        RecordDict({"config": ConfigRecord(config | context.run_config)}), reply_to=message
    )


@app.query("fail")
def fail(message, context):
    raise RuntimeError("secret of the data")


@app.query("die")
def die(message, context):
    os._exit(7)


def _answer_tasks(tasks, context):
    """Stand in for the worker's function: it runs this module's app, in the worker too."""
    in_process.client_app = app
    return ANSWER_TASKS(tasks, context)


ANSWER_TASKS = in_process._answer_tasks


@pytest.fixture(autouse=True)
def echoing(monkeypatch):
    monkeypatch.setattr(in_process, "client_app", app)
    monkeypatch.setattr(in_process, "_answer_tasks", _answer_tasks)


@pytest.fixture(scope="module")
def workers():
    with closing(InProcessGrid(4, {"rounds": 7}, workers=2)) as grid:
        yield grid


@pytest.fixture(params=["this process", "workers"])
def grid(request):
    if request.param == "workers":
        return request.getfixturevalue("workers")
    return InProcessGrid(4, {"rounds": 7})


def messages(nodes, kind="query.echo", seconds=0.0):
    content = RecordDict({"config": ConfigRecord({"seconds": seconds})})
    return [Message(content, FIRST_NODE_ID + node, kind) for node in nodes]


def configs(replies):
    return [reply.content["config"] for reply in replies]


def test_flower_s_private_parts_are_where_they_were():
    """A Message reads the process-wide identity, and its carrier sets its id."""
    InProcessGrid(1, {})
    assert (TaskIdentity.run_id, TaskIdentity.node_id) == (RUN_ID, SERVER_NODE_ID)
    (message,) = messages([0])
    assert message.metadata.message_id == ""
    message.metadata.__dict__["_message_id"] = "m"
    assert message.metadata.message_id == "m"
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.reply_to_message_id == "m"
    assert (reply.metadata.src_node_id, reply.metadata.group_id) == (FIRST_NODE_ID, "")


def test_every_node_is_answered_under_its_own_context(grid):
    asked = messages(grid.get_node_ids()[i] - FIRST_NODE_ID for i in range(4))
    by_id = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(asked)}
    for position, message in enumerate(asked):
        reply = by_id[message.metadata.message_id]
        config = reply.content["config"]
        assert (config["partition-id"], config["num-partitions"], config["rounds"]) == (
            position, 4, 7,
        )  # fmt: skip
        assert reply.metadata.src_node_id == message.metadata.dst_node_id


def test_a_reply_is_pulled_once(grid):
    ids = list(grid.push_messages(messages([1])))
    deadline = time.monotonic() + 60
    while not (pulled := list(grid.pull_messages(ids))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(pulled) == 1
    assert list(grid.pull_messages(ids)) == []


def test_a_failing_client_and_a_missing_node_are_error_replies(grid):
    asked = [*messages([0], "query.fail"), *messages([97]), *messages([1])]
    replies = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(asked)}
    failed, missing, good = (replies[message.metadata.message_id] for message in asked)
    assert failed.has_error()
    assert "secret" not in failed.error.reason
    assert missing.error.reason == "no such node"
    assert not good.has_error()


def test_messages_of_a_node_are_answered_in_order_by_one_worker(workers):
    replies = list(workers.send_and_receive(messages([0, 0, 0, 1, 1, 1], seconds=0.05)))
    found = configs(replies)
    assert os.getpid() not in {config["pid"] for config in found}
    for node in (0, 1):
        order = sorted(
            (reply for reply in replies if reply.content["config"]["partition-id"] == node),
            key=lambda reply: int(reply.metadata.reply_to_message_id.removeprefix("message-")),
        )
        moments = [c["moment"] for c in configs(order)]
        assert moments == sorted(moments)
        assert len({c["pid"] for c in configs(order)}) == 1


def test_a_reply_that_nobody_pulled_in_time_is_dropped(workers):
    straggler, other = messages([0, 1], seconds=0.1)
    straggler.metadata.ttl = 0.2
    ids = list(workers.push_messages([straggler, other]))
    deadline = time.time() + 0.3
    list(workers.send_and_receive(messages([0, 1])))
    while time.time() < deadline:
        time.sleep(0.02)
    list(workers.push_messages([]))
    found, patience = [], time.time() + 60  # the other worker may still be at it
    while not found and time.time() < patience:
        found = [reply.metadata.reply_to_message_id for reply in workers.pull_messages(ids)]
        time.sleep(0.02)
    assert found == ids[1:]


def test_a_dead_worker_is_an_error_that_says_what_to_do():
    error = pytest.raises(ChildProcessError, match="resume the run, with fewer --workers")
    with closing(InProcessGrid(2, {}, workers=2)) as grid, error:
        grid.send_and_receive(messages([0, 1], "query.die"))


def test_closing_lets_what_is_at_hand_end():
    grid = InProcessGrid(2, {}, workers=2)
    ids = list(grid.push_messages(messages([0, 1], seconds=0.5)))
    deadline = time.monotonic() + 60
    while not all(grid._replies[name][0].running() for name in ids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    grid.close()
    assert len(list(grid.pull_messages(ids))) == 2
