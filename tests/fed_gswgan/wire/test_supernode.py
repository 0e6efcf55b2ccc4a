"""What is changed about Flower's SuperNode, against Flower's own code."""

import inspect
import logging
import re
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.superexec import run_superexec
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeStateFactory

from fed_gswgan.wire import supernode
from fed_gswgan.wire.supernode import end_when_given_up

POLL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"

pytestmark = pytest.mark.usefixtures("task_identity")


@pytest.fixture
def asked_to_end() -> Iterator[list[int]]:
    """Take down each SIGTERM that this process gets, under the watch."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addFilter(end_when_given_up)
    yield signals
    logger.removeFilter(end_when_given_up)
    logger.setLevel(level)
    signal.signal(signal.SIGTERM, before)


def fetch(run_ends: bool) -> int | None:
    """Let Flower fetch one message of a run that it knows, which may end on the way."""
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = message.object_id
    objects_of_message = get_all_nested_objects(message)

    def pull_object(run_id: int, object_id: str) -> bytes:
        if run_ends:
            raise RunNotRunningException
        return objects_of_message[object_id].deflate()

    objects = ObjectStoreFactory()
    state = NodeStateFactory(objects).state()
    state.store_run(Run.create_empty(TaskIdentity.run_id))
    return start_client_internal._pull_and_store_message(
        state=state,
        object_store=objects.store(),
        node_config={},
        receive=lambda: (message, get_object_tree(message)),
        get_run=Run.create_empty,
        get_fab=lambda fab_hash, run_id: pytest.fail("the run is known"),
        pull_object=pull_object,
        confirm_message_received=lambda run_id, message_id: None,
        trusted_entities=None,
    )


class TestEndWhenGivenUp:
    def test_ends_when_the_run_ends_while_a_message_is_fetched(
        self, asked_to_end: list[int]
    ) -> None:
        fetch(run_ends=True)
        assert asked_to_end == [signal.SIGTERM]

    def test_goes_on_after_a_message_that_arrived(self, asked_to_end: list[int]) -> None:
        assert fetch(run_ends=False) == TaskIdentity.run_id
        assert not asked_to_end


class TestLookMoreOften:
    def test_each_pause_of_flowers_loop_is_a_third(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that the loop does with ``time`` is to sleep, and it does so three times."""
        source = inspect.getsource(start_client_internal)
        calls = re.findall(r"\btime\.(\w.*)", source)
        assert calls == ["sleep(3)", "sleep(0.5)", "sleep(0.5)"]
        monkeypatch.setattr(start_client_internal, "time", time)  # put back at the end
        monkeypatch.delenv(POLL, raising=False)
        slept: list[float] = []
        monkeypatch.setattr(supernode, "time", SimpleNamespace(sleep=slept.append))
        supernode.look_more_often()
        start_client_internal.time.sleep(3)
        assert slept == [1]
        assert run_superexec._get_task_poll_interval() == 0.2

    def test_an_owners_own_interval_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(start_client_internal, "time", time)
        monkeypatch.setenv(POLL, "5")
        supernode.look_more_often()
        assert run_superexec._get_task_poll_interval() == 5
