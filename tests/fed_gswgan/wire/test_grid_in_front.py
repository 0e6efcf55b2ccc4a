import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fed_gswgan.wire.grid_in_front import GridInFront, expired
from simulations.in_process_grid import InProcessGrid
from tests.simulations.echoing_app import app

pytestmark = pytest.mark.usefixtures("task_identity")


class InFront(GridInFront):
    """One that pushes and pulls as the Grid behind it does."""

    def push_messages(self, messages):
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids):
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages, *, timeout=None):
        return self._grid.send_and_receive(messages, timeout=timeout)


def test_run_nodes_and_messages_are_those_of_the_grid_behind():
    behind = InProcessGrid(app, 3, {})
    grid = InFront(behind)
    content = RecordDict({"config": ConfigRecord({"seconds": 0.0})})

    message = grid.create_message(content, "query.echo", list(grid.get_node_ids())[1], "7", 60.0)
    (reply,) = grid.send_and_receive([message])

    assert list(grid.get_node_ids()) == list(behind.get_node_ids())
    assert reply.content["config"]["partition"] == 1
    assert (message.metadata.group_id, message.metadata.ttl) == ("7", 60.0)
    grid.set_run(behind.run)
    assert grid.run is behind.run


@pytest.mark.parametrize(("age_seconds", "over"), [(0, False), (9, False), (11, True)])
def test_a_message_is_expired_once_its_time_to_live_is_over(age_seconds, over):
    message = Message(RecordDict(), 2, "query.echo", ttl=10.0)
    message.metadata.__dict__["_created_at"] -= age_seconds

    assert expired(message) is over
