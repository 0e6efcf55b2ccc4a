"""The in-process Grid, or the vectorized one, over worker processes of one thread each.

What a client answers does not depend on who asks the app: its ledger and its critic lie in its
folder, its context comes with the message and goes back, its randomness follows from the seed.
"""

import math
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fed_gswgan.flat_table import Value
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.worker_process import end_with, one_thread_each
from simulations.in_process_grid import (
    InProcessGrid,
    answer_each,
    delivered,
    drop_expired,
    no_such_node,
)
from simulations.vectorized_grid import AT_ONCE, answer_cohort

LAST_WORDS_SECONDS = 5.0  # for the exit status of a worker whose connection broke

Task = tuple[Message, bytes, int]  # its content, serialised; how many a worker takes with it


def shipped_client_app() -> ClientApp:
    """Return the ClientApp that every runtime calls."""
    from client.app import app

    return app


class WorkerGrid(InProcessGrid):
    """Hands messages to the next free worker and keeps the replies until they are pulled.

    Messages to one client are answered one after the other, in the order they were pushed.

    Args:
        num_nodes: virtual nodes.
        run_config: every context's.
        workers: processes.
        load_client_app: a module's function; each worker calls it once.
        at_once: a worker takes its share of a cohort, and trains the critics of all at once.
    """

    def __init__(
        self,
        num_nodes: int,
        run_config: Mapping[str, Value],
        workers: int,
        load_client_app: Callable[[], ClientApp] = shipped_client_app,
        at_once: bool = False,
    ) -> None:
        super().__init__(load_client_app(), num_nodes, run_config)
        self._changed = threading.Condition()  # guards what follows, and the replies
        self._waiting: deque[Task] = deque()
        self._at_once = at_once
        self._busy: set[int] = set()  # node ids
        self._closed = False
        self._died = ""
        self._processes: list[BaseProcess] = []
        self._threads = [
            threading.Thread(target=self._feed, args=self._start(load_client_app), daemon=True)
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue the messages and return their ids; what they share is serialised once."""
        messages = list(messages)
        contents = {id(m.content): m.content for m in messages}
        pickled = {key: pickle.dumps(content) for key, content in contents.items()}
        share = math.ceil(len(messages) / len(self._threads)) if self._at_once else 1
        with self._changed:
            drop_expired(self._replies)
            message_ids = [self._name(message) for message in messages]
            for message, message_id in zip(messages, message_ids, strict=True):
                if message.metadata.dst_node_id in self._node_ids:
                    task = (message, pickled[id(message.content)], min(share, AT_ONCE))
                    self._waiting.append(task)
                else:
                    self._replies[message_id] = no_such_node(message)
            self._changed.notify_all()
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return, once, those replies that are there.

        Raises:
            ChildProcessError: a worker died, and nobody knows how far its client came.
        """
        with self._changed:
            if self._died:
                raise ChildProcessError(self._died)
            return super().pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, wait for all replies or the time-out, and pull."""
        message_ids = set(self.push_messages(messages))
        with self._changed:
            self._changed.wait_for(lambda: self._died or message_ids <= set(self._replies), timeout)
        return self.pull_messages(message_ids)

    def close(self) -> None:
        """Drop what waits, let each worker finish the message at hand, and end it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.join()

    def _start(self, load_client_app: Callable[[], ClientApp]) -> tuple[BaseProcess, Connection]:
        """Start a worker; return it and this end of its connection."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(
            target=_work, args=(theirs, load_client_app, self._at_once, os.getpid()), daemon=True
        )
        # Ctrl-C is the parent's to answer, from a worker's first moment: it inherits the mask.
        resource_tracker.ensure_running()  # or the first start lifts the mask again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with one_thread_each():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._processes.append(process)
        return process, ours

    def _feed(self, process: BaseProcess, connection: Connection) -> None:
        """Give one worker its messages until the end."""
        with connection:  # closing it ends the worker
            while tasks := self._take():
                contexts = [self.context(message.metadata.dst_node_id) for message, *_ in tasks]
                try:
                    connection.send(
                        [
                            (message.metadata, content, context)
                            for (message, content, _), context in zip(tasks, contexts, strict=True)
                        ]
                    )
                    answers = connection.recv()
                except (EOFError, OSError):
                    self._say_died(process, contexts)
                    return
                with self._changed:
                    for (message, *_), context, answered in zip(
                        tasks, contexts, answers, strict=True
                    ):
                        reply, context.state = answered
                        self._busy.discard(context.node_id)
                        self._keep(context)
                        self._replies[message.metadata.message_id] = reply
                    self._changed.notify_all()

    def _take(self) -> list[Task]:
        """Wait for messages to clients that no worker serves; none at the end."""
        with self._changed:
            while not self._closed and not self._died:
                taken: list[Task] = []
                position, share = 0, 1
                while position < len(self._waiting) and len(taken) < share:
                    node_id = self._waiting[position][0].metadata.dst_node_id
                    if node_id in self._busy:
                        position += 1
                    else:
                        self._busy.add(node_id)
                        taken.append(self._waiting[position])
                        share = taken[0][-1]
                        del self._waiting[position]
                if taken:
                    return taken
                self._changed.wait()
        return []

    def _say_died(self, process: BaseProcess, contexts: Sequence[Context]) -> None:
        process.join(LAST_WORDS_SECONDS)
        served = ", ".join(str(context.node_config["partition-id"]) for context in contexts)
        with self._changed:
            self._died = (
                f"a worker process (pid {process.pid}) ended with status {process.exitcode} while "
                f"it served partition-id={served}; finished rounds are saved: resume the "
                "run, with fewer --workers if memory ran out (status -9)"
            )
            self._changed.notify_all()


def _work(
    connection: Connection, load_client_app: Callable[[], ClientApp], at_once: bool, parent: int
) -> None:
    """Answer messages until the parent closes the connection or is gone."""
    end_with(parent)
    client_app = load_client_app()
    while True:
        try:
            tasks = connection.recv()
        except EOFError:
            return
        contents = {id(pickled): pickle.loads(pickled) for _, pickled, _ in tasks}
        messages = [delivered(metadata, contents[id(pickled)]) for metadata, pickled, _ in tasks]
        contexts = [context for _, _, context in tasks]
        if at_once and all(message.metadata.message_type == TRAIN for message in messages):
            replies = answer_cohort(messages, contexts)
        else:
            replies = answer_each(client_app, messages, contexts)
        states = (context.state for context in contexts)
        connection.send(list(zip(replies, states, strict=True)))
