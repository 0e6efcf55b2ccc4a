"""Runtime without Ray: a Grid that calls the ClientApp in this process, or in a pool of processes.

It touches private parts of Flower: a Message reads the process-wide TaskIdentity, and a message's
id is set by its carrier. ``tests/simulations/test_in_process.py`` pins both.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as client_app
from fed_gswgan.settings import Value
from fed_gswgan.wire.message_types import CLIENT_FAILED
from simulations.worker_process import end_with, environment

logger = logging.getLogger(__name__)

SERVER_NODE_ID = 1
FIRST_NODE_ID = 2  # of the clients
RUN_ID = 1

Task = tuple[Metadata, bytes]  # a message and its pickled content


class InProcessGrid(Grid):
    """Answers each message when it is pushed, or hands it to a pool of worker processes.

    Messages to one node are answered one after the other.

    Args:
        num_nodes: virtual nodes; that of partition-id ``i`` is ``FIRST_NODE_ID + i``.
        run_config: every context's.
        workers: processes of one thread each; 1: none but this one.
    """

    def __init__(self, num_nodes: int, run_config: Mapping[str, Value], workers: int = 1) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
        TaskIdentity.node_id = SERVER_NODE_ID
        self._run = Run.create_empty(run_id=RUN_ID)
        self._run_config = dict(run_config)
        self._node_ids = range(FIRST_NODE_ID, FIRST_NODE_ID + num_nodes)
        self._replies: dict[str, tuple[Future[list[Message]], int, float]] = {}
        self._pushed = 0
        self._pool = _pool(workers) if workers > 1 else None

    def set_run(self, run: Run) -> None:
        """Set the run; it names nothing that matters here."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower's older way."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the virtual nodes."""
        return self._node_ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer the messages, or queue them, and return their ids."""
        self._drop_expired()
        by_node: dict[int, list[Message]] = {}
        message_ids = []
        for message in messages:
            self._pushed += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._pushed}"
            message_ids.append(message.metadata.message_id)
            by_node.setdefault(message.metadata.dst_node_id, []).append(message)
        for node_id, of_node in by_node.items():
            future = self._submit(node_id, of_node)
            for position, message in enumerate(of_node):
                expires = message.metadata.created_at + message.metadata.ttl
                self._replies[message.metadata.message_id] = future, position, expires
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, the replies that are there.

        Raises:
            ChildProcessError: a worker died, and how far its clients came is unknown.
        """
        found = []
        for message_id in list(message_ids):
            future, position, _ = self._replies.get(message_id, (None, 0, 0.0))
            if future is None or not future.done():
                continue
            try:
                found.append(future.result()[position])
            except BrokenProcessPool as error:
                for process in multiprocessing.active_children():
                    process.kill()  # they ignore the SIGTERM by which the pool would end them
                raise ChildProcessError(
                    "a worker process ended while it served clients; finished rounds are saved: "
                    "resume the run, with fewer --workers if memory ran out"
                ) from error
            del self._replies[message_id]
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, wait for all replies or the time-out, and pull."""
        message_ids = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while message_ids and (deadline is None or time.monotonic() < deadline):
            for reply in self.pull_messages(message_ids):
                message_ids.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            time.sleep(0.002)
        return replies

    def close(self) -> None:
        """Drop what waits, let each worker finish what it has at hand, and end it."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, node_id: int, messages: Sequence[Message]) -> "Future[list[Message]]":
        context = self._context(node_id)
        if self._pool is not None:
            tasks = [(m.metadata, pickle.dumps(m.content)) for m in messages]
            return self._pool.submit(_answer_tasks, tasks, context)
        future: Future[list[Message]] = Future()
        future.set_result([_answer(message, context) for message in messages])
        return future

    def _context(self, node_id: int) -> Context | None:
        """Return what a node's ClientApp is called with; None if there is no such node."""
        if node_id not in self._node_ids:
            return None
        place = {
            "partition-id": self._node_ids.index(node_id),
            "num-partitions": len(self._node_ids),
        }
        return Context(
            run_id=RUN_ID,
            node_id=node_id,
            node_config=dict(place),
            state=RecordDict(),
            run_config=self._run_config,
        )

    def _drop_expired(self) -> None:
        """Forget late replies, as Flower's SuperLink does."""
        now = time.time()
        self._replies = {m: reply for m, reply in self._replies.items() if reply[2] > now}


def _answer(message: Message, context: Context | None) -> Message:
    """Return the app's reply; a failure is one too, as in every other runtime."""
    if context is None:
        return Message(Error(CLIENT_FAILED, "no such node"), reply_to=message)
    try:
        return client_app(message, context)
    except Exception:
        logger.exception("client failed")
        return Message(Error(CLIENT_FAILED, "client failed"), reply_to=message)


def _answer_tasks(tasks: Sequence[Task], context: Context | None) -> list[Message]:
    messages: list[Any] = [
        Message(metadata=metadata, content=pickle.loads(content))  # type: ignore[call-overload]
        for metadata, content in tasks
    ]
    return [_answer(message, context) for message in messages]


def _pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose processes use one thread each, leave signals to this one, end with it."""
    with environment(OMP_NUM_THREADS="1"):
        pool = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(),),
        )
        for started in [pool.submit(os.getpid) for _ in range(workers)]:
            started.result()
    return pool


def _begin(parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent, which gets them too, ends the run
        signal.signal(number, signal.SIG_IGN)
    TaskIdentity.task_id, TaskIdentity.run_id = 1, RUN_ID
    TaskIdentity.node_id = SERVER_NODE_ID
    end_with(parent)
