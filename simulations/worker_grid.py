"""In-process Grid over worker processes of one thread each.

What a client answers does not depend on who asks the app: its ledger and its critic lie in its
folder, its context comes with the message and goes back, its randomness follows from the seed.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fed_gswgan.flat_table import Value
from fed_gswgan.worker_process import end_with, one_thread_each
from simulations.in_process_grid import (
    InProcessGrid,
    answer,
    delivered,
    drop_expired,
    no_such_node,
)

LAST_WORDS_SECONDS = 5.0  # for the exit status of a worker whose connection broke

Task = tuple[Message, bytes]  # the message, its content serialised


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
    """

    def __init__(
        self,
        num_nodes: int,
        run_config: Mapping[str, Value],
        workers: int,
        load_client_app: Callable[[], ClientApp] = shipped_client_app,
    ) -> None:
        super().__init__(load_client_app(), num_nodes, run_config)
        self._changed = threading.Condition()  # guards what follows, and the replies
        self._waiting: deque[Task] = deque()
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
        with self._changed:
            drop_expired(self._replies)
            message_ids = [self._name(message) for message in messages]
            for message, message_id in zip(messages, message_ids, strict=True):
                if message.metadata.dst_node_id in self._node_ids:
                    self._waiting.append((message, pickled[id(message.content)]))
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
            target=_work, args=(theirs, load_client_app, os.getpid()), daemon=True
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
            while task := self._take():
                message, content = task
                context = self.context(message.metadata.dst_node_id)
                try:
                    connection.send((message.metadata, content, context))
                    reply, context.state = connection.recv()
                except (EOFError, OSError):
                    self._say_died(process, context)
                    return
                with self._changed:
                    self._busy.discard(context.node_id)
                    self._keep(context)
                    self._replies[message.metadata.message_id] = reply
                    self._changed.notify_all()

    def _take(self) -> Task | None:
        """Wait for a message to a client that no worker serves; None at the end."""
        with self._changed:
            while not self._closed and not self._died:
                for position, task in enumerate(self._waiting):
                    node_id = task[0].metadata.dst_node_id
                    if node_id not in self._busy:
                        self._busy.add(node_id)
                        del self._waiting[position]
                        return task
                self._changed.wait()
        return None

    def _say_died(self, process: BaseProcess, context: Context) -> None:
        process.join(LAST_WORDS_SECONDS)
        served = context.node_config["partition-id"]
        with self._changed:
            self._died = (
                f"a worker process (pid {process.pid}) ended with status {process.exitcode} while "
                f"it served partition-id={served}; finished rounds are saved: resume the "
                "run, with fewer --workers if memory ran out (status -9)"
            )
            self._changed.notify_all()


def _work(connection: Connection, load_client_app: Callable[[], ClientApp], parent: int) -> None:
    """Answer messages until the parent closes the connection or is gone."""
    end_with(parent)
    client_app = load_client_app()
    while True:
        try:
            metadata, pickled, context = connection.recv()
        except EOFError:
            return
        message = delivered(metadata, pickle.loads(pickled))
        connection.send((answer(client_app, message, context), context.state))
