import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from simulations.in_process_grid import RUN_ID, SERVER_NODE_ID, InProcessGrid
from simulations.virtual_nodes import VirtualNodes

app = ClientApp()


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    config = ConfigRecord({"partition": context.node_config["partition-id"], **context.run_config})
    return Message(RecordDict({"config": config}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    raise RuntimeError("secret of the data")


def ask(grid: Grid, node_id: int, kind: str = "query.echo") -> Message:
    message = Message(RecordDict({"config": ConfigRecord({"x": 1})}), node_id, kind)
    (reply,) = grid.send_and_receive([message])
    return reply


def test_every_node_has_its_partition_and_the_run_config():
    grid = InProcessGrid(app, 3, {"rounds": 7})

    replies = [ask(grid, node_id) for node_id in grid.get_node_ids()]

    assert [reply.content["config"]["partition"] for reply in replies] == [0, 1, 2]
    assert all(reply.content["config"]["rounds"] == 7 for reply in replies)


def test_a_reply_names_its_message_and_its_node():
    grid = InProcessGrid(app, 2, {})
    node_id = list(grid.get_node_ids())[1]
    message = Message(RecordDict({"config": ConfigRecord({"x": 1})}), node_id, "query.echo")

    (message_id,) = grid.push_messages([message])
    (reply,) = grid.pull_messages([message_id])

    assert reply.metadata.reply_to_message_id == message_id
    assert reply.metadata.src_node_id == node_id


def test_a_reply_is_pulled_once():
    grid = InProcessGrid(app, 1, {})
    message = Message(
        RecordDict({"config": ConfigRecord({"x": 1})}),
        next(iter(grid.get_node_ids())),
        "query.echo",
    )
    ids = list(grid.push_messages([message]))

    assert len(list(grid.pull_messages(ids))) == 1
    assert list(grid.pull_messages(ids)) == []


def test_a_client_that_raises_becomes_an_error_reply_without_its_text():
    grid = InProcessGrid(app, 1, {})

    reply = ask(grid, next(iter(grid.get_node_ids())), "query.fail")

    assert reply.has_error()
    assert "secret" not in reply.error.reason


def test_the_private_identity_that_messages_read_is_still_where_it_was():
    """Pins the one private import: if Flower moves it, this says so before anything else."""
    InProcessGrid(app, 1, {})

    assert (TaskIdentity.run_id, TaskIdentity.node_id) == (RUN_ID, SERVER_NODE_ID)
    with pytest.raises(TypeError):
        Message(RecordDict())


def test_a_virtual_clients_node_is_that_of_its_partition():
    grid, nodes = InProcessGrid(app, 3, {}), VirtualNodes(3)

    replies = [ask(grid, nodes.node_id(nodes[position])) for position in range(3)]

    assert [reply.content["config"]["partition"] for reply in replies] == [0, 1, 2]
    assert [nodes.node_id(nodes[i]) for i in range(3)] == list(grid.get_node_ids())


def test_nodes_that_nobody_asks_are_not_made(monkeypatch):
    made = []
    monkeypatch.setattr(
        "simulations.in_process_grid.Context",
        lambda **fields: made.append(fields) or Context(**fields),
    )
    grid = InProcessGrid(app, 100_000, {})
    ask(grid, grid.get_node_ids()[-1])

    assert [fields["node_config"]["partition-id"] for fields in made] == [99_999]


def test_a_node_that_there_is_not_is_an_error_reply():
    assert ask(InProcessGrid(app, 2, {}), 99).has_error()
