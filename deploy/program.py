"""Long-running process that can be started again, and the end of all that it started."""

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

STOP_PATIENCE_SECONDS = 20.0


class Descendant(NamedTuple):
    """A process that a program started, itself or through others."""

    process_id: int
    command: str


class Program:
    """One process at a time of a command, which may start others.

    Attributes:
        started_at: the last time, by ``time.monotonic``.

    Args:
        name: for people, and of the log.
        command: program and arguments.
        environment: the whole of it.
        folder: working directory.
        log: file that its output is appended to.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
    ) -> None:
        self.name = name
        self.log = log
        self.started_at = -math.inf
        self._command = list(command)
        self._environment = dict(environment)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whatever ran before has ended."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the others.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        """Id of the running process; ValueError if it was never started."""
        if self._process is None:
            raise ValueError(f"{self.name} was not started")
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process is not None and self._process.poll() is None

    def descendants(self) -> list[Descendant]:
        """Return the processes below it that run now."""
        return descendants(self.process_id) if self.alive() else []

    def kill(self) -> None:
        """End the process alone, at once, as a power cut does; what is below it notices."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None and self.alive():
            self._process.terminate()

    def ended_by(self, deadline: float) -> bool:
        """Wait until it ends or ``time.monotonic`` reaches the deadline; tell whether it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(max(0.0, deadline - time.monotonic()))
        return not self.alive()

    def last_lines(self, count: int = 20) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def stop_all(programs: Sequence[Program]) -> None:
    """End programs and everything below them: asked first, all at once, forced after a while."""
    below = [descendant for program in programs for descendant in program.descendants()]
    for program in programs:
        program.terminate()
    deadline = time.monotonic() + STOP_PATIENCE_SECONDS
    for program in programs:
        if not program.ended_by(deadline):
            program.kill()
    _end(below)


def descendants(process_id: int) -> list[Descendant]:
    """Return the processes below this one, from Linux's ``/proc``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent_of(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: list[Descendant] = []
    waiting = [process_id]
    while waiting:
        for child in children.get(waiting.pop(), []):
            waiting.append(child)
            if command := command_of(child):  # else it ended since its parent was read
                found.append(Descendant(child, command))
    return found


def _parent_of(entry: Path) -> int | None:
    """Return the parent's id; None for a process that is gone or has ended."""
    try:
        # After the command in parentheses, which may hold anything: state, then the parent's id.
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def command_of(process_id: int) -> str:
    """Return a running process's command line; empty if it ended."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _end(processes: Sequence[Descendant]) -> None:
    """Wait until these have ended, as they do once their parent has, and kill who has not."""
    deadline = time.monotonic() + STOP_PATIENCE_SECONDS
    for process_id, command in processes:
        while command_of(process_id) == command != "":
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.05)
