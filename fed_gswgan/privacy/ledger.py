"""Ledger of private releases: asked before data is touched, on disk before a release leaves.

A folder holds three files. ``ledger.db`` has a line for each release about each user, chained by
hashes; each line carries its user's counts so far, so that a reservation reads one line of a user
whatever the ledger's length. ``ledger.head`` repeats the last line's number and hash.
``replies.db`` keeps replies and states for requests that are repeated, each with the number of the
ledger's last line, so that a ledger that was rolled back alone shows. A folder may serve one client
(a device) or many (a shard of a simulation); a user without a line has spent nothing.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from fed_gswgan.privacy.counter import raise_counter
from fed_gswgan.privacy.durable import connect, database, transaction, write_durably
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Budget, Policy
from fed_gswgan.privacy.refusals import (
    LedgerLocked,
    LedgerUnavailable,
    MinSeparation,
    Refusal,
    Replay,
)

LEDGER, HEAD, REPLIES, LOCK = "ledger.db", "ledger.head", "replies.db", "ledger.lock"
VERSION = 2
LOCK_PATIENCE_SECONDS = 60.0
SIMULATION_PATIENCE_SECONDS = 3600.0  # a shard answers its messages one after the other
KEPT_EXPERIMENTS = 4  # whose replies and states are kept for a client

_EVENT = TypeAdapter(Event)

_LEDGER_TABLES = """
CREATE TABLE header (version INTEGER, ledger_id TEXT, owners TEXT);
CREATE TABLE events (id INTEGER PRIMARY KEY, event TEXT UNIQUE);
CREATE TABLE lines (
    number INTEGER PRIMARY KEY, batch INTEGER, user TEXT, experiment TEXT, server_round INTEGER,
    request_hash TEXT, event INTEGER, policy TEXT, unix_seconds REAL, counts TEXT, hash TEXT
);
CREATE INDEX of_user ON lines (user, number);
CREATE INDEX of_release ON lines (user, experiment, server_round);
CREATE INDEX of_round ON lines (experiment, server_round);
"""
# When the last line about a user was written, for policies that separate answers by time.
_MOMENTS_TABLE = """
CREATE TABLE IF NOT EXISTS moments (user TEXT PRIMARY KEY, number INTEGER, boot TEXT, seconds REAL)
"""
_REPLY_TABLES = """
CREATE TABLE header (ledger_id TEXT, last_number INTEGER);
CREATE TABLE replies (
    client TEXT, experiment TEXT, server_round INTEGER, request_hash TEXT, number INTEGER,
    steps BLOB, PRIMARY KEY (client, experiment, server_round)
);
CREATE TABLE states (
    client TEXT, experiment TEXT, server_round INTEGER, number INTEGER, state BLOB,
    PRIMARY KEY (client, experiment, server_round)
);
"""


class Key(Protocol):
    """What makes a release the same release when it is asked for again."""

    @property
    def experiment_id(self) -> str:
        """A resumed run keeps it."""

    @property
    def server_round(self) -> int:
        """From 1."""

    @property
    def request_hash(self) -> str:
        """Of everything that decides the release."""


class Line(NamedTuple):
    """One release about one user, as ``Ledger.lines`` returns it."""

    number: int
    user: str
    experiment_id: str
    server_round: int
    event: Event
    unix_seconds: float


class _Last(NamedTuple):
    """What the last line about a user says: counts by event, as JSON; number 0: there is none."""

    counts: str
    number: int


class Uptime(NamedTuple):
    """A moment of this machine, which no setting of its wall clock changes.

    Attributes:
        boot: of which start of the machine.
        seconds: since then, sleep included.
    """

    boot: str
    seconds: float


def uptime() -> Uptime:
    """Return the moment, as Linux keeps it; OSError elsewhere."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Uptime(boot, time.clock_gettime(_STEADY))


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
STARTED_SECONDS = time.clock_gettime(_STEADY)  # of this process, as ``Uptime.seconds``


class Reservation(NamedTuple):
    """What ``Ledger.reserve`` decided, by client id.

    Attributes:
        kept: replies of before, in grid steps.
        todo: who is charged and must be answered.
        refused: who is not answered.
    """

    kept: dict[str, np.ndarray]
    todo: list[str]
    refused: dict[str, Refusal]


def owners_hash(users: Mapping[str, Sequence[str]]) -> str:
    """Return a hash of whose data each client holds, which a ledger belongs to."""
    table = json.dumps([[client, list(users[client])] for client in sorted(users)])
    return hashlib.sha256(table.encode()).hexdigest()


class Ledger:
    """The ledger in a folder, opened, verified and locked by ``with``.

    Args:
        folder: holds the three files.
        owners: ``owners_hash`` of the clients and users whose data it guards; empty: not compared.
        durable: whether replies too are on disk before they leave; the ledger always is.
        clock: seconds since 1970, written down for the owner.
        uptime: what answers are separated by.

    Raises:
        LedgerLocked: another process holds it.
        LedgerUnavailable: on entering: a file is missing, unreadable, cut, rolled back, written by
            another version, or of other users. It counts as exhausted.
    """

    def __init__(
        self,
        folder: Path,
        owners: str = "",
        durable: bool = True,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], Uptime] = uptime,
    ) -> None:
        self._folder, self._owners, self._durable = folder, owners, durable
        self._clock, self._uptime = clock, uptime
        self._lock = FileLock(folder / LOCK, mode=0o600)
        self._last_number, self._last_hash = 0, ""

    @staticmethod
    def create(folder: Path, owners: str) -> None:
        """Create an empty ledger, once.

        Raises:
            FileExistsError: there is one, or what is left of one.
        """
        for name in (LEDGER, HEAD, REPLIES):
            if (folder / name).exists():
                raise FileExistsError(f"{folder / name}: there is a ledger already; it stays")
        folder.mkdir(parents=True, exist_ok=True)
        ledger_id = secrets.token_hex(16)
        with database(folder / REPLIES, create=True) as replies:
            replies.executescript(_REPLY_TABLES)
            replies.execute("INSERT INTO header VALUES (?, 0)", (ledger_id,))
        with database(folder / LEDGER, create=True) as ledger:
            ledger.executescript(_LEDGER_TABLES)
            ledger.execute("INSERT INTO header VALUES (?, ?, ?)", (VERSION, ledger_id, owners))
        write_durably(folder / HEAD, _head(0, _first_hash(ledger_id, owners)))

    @staticmethod
    def complete(folder: Path, owners: str) -> None:
        """Create an empty ledger unless there is one; replace what an interrupted creation left.

        A ledger with a line is never replaced, whatever is missing beside it.
        """
        if (folder / HEAD).exists() or has_line(folder):
            return  # a line without its head counts as exhausted
        for name in (LEDGER, REPLIES):
            (folder / name).unlink(missing_ok=True)
        Ledger.create(folder, owners)

    def __enter__(self) -> "Ledger":
        if not self._folder.is_dir():
            raise LedgerUnavailable(f"ledger {self._folder}: the folder is missing")
        try:
            self._lock.acquire(
                timeout=LOCK_PATIENCE_SECONDS if self._durable else SIMULATION_PATIENCE_SECONDS
            )
        except Timeout as error:
            raise LedgerLocked(f"ledger {self._folder}: another process holds it") from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.close()
        self._replies.close()
        self._lock.release()

    def reserve(
        self,
        clients: Mapping[str, Sequence[str]],
        key: Key,
        event: Event,
        policy: Policy | Budget,
        recompute: bool = False,
    ) -> Reservation:
        """Charge every user of every client for one release, durably, or refuse the client.

        A repeat is answered from the reply that was kept, at no charge; under central trust it is
        charged. Whatever happens after the reservation, it stays spent: a refund that depends on
        the data would itself leak.

        Args:
            clients: client id to its users; no user has two clients.
            key: of the release.
            event: what it costs.
            policy: the limits.
            recompute: whether a reply that is gone is computed anew, to the same bytes, without a
                charge: noise is seeded.

        Raises:
            LedgerUnavailable: a reply without its ledger line, a user of two clients, or the disk
                refuses; nothing may be released.
        """
        decided = Reservation({}, [], {})
        charged: dict[str, str] = {}  # user to its counts so far
        self.require_newest(policy)
        with self._failing_closed():
            users = list(chain(*clients.values()))
            if len(set(users)) < len(users):
                raise ValueError("a user must not have two clients")
            answered, replies, last = (
                self._charged(key),
                self._kept(key, clients),
                self._last(users),
            )
            events = self._events()

            @cache  # of a cohort most users spent the same
            def require_budget(counts: str) -> None:
                policy.admit_spending(_counter(counts, events), event)

            for client, mine in clients.items():
                charged_before, reply = mine[0] in answered, replies.get(client)
                if reply is not None and not charged_before:
                    raise LedgerUnavailable(f"ledger {self._folder}: a reply has no ledger line")
                # A trusted server may add other noise to the same sum: it is a new release.
                if reply is not None and (recompute or event.trust != "central"):
                    decided.kept[client] = reply
                    continue
                try:
                    if not (charged_before and recompute):
                        if charged_before and reply is None:
                            _refuse_replay(event, policy)
                        for user in mine:
                            require_budget(last[user].counts)
                            self._require_separation(user, last[user].number, key, policy)
                        charged |= {user: last[user].counts for user in mine}
                    if reply is None:
                        decided.todo.append(client)
                    else:
                        decided.kept[client] = reply
                except Refusal as refusal:
                    decided.refused[client] = refusal
            self._append(charged, key, event, policy)
        self.require_newest(policy)
        return decided

    def require_newest(self, policy: Policy | Budget) -> None:
        """Require that the owner's counter, if there is one, stands where the ledger ends.

        After a crash it may be behind by the last charge, and is raised.

        Raises:
            LedgerUnavailable: it stands higher, so that the ledger is an older copy; or it cannot
                be asked.
        """
        if not isinstance(policy, Policy) or not policy.counter:
            return
        with self._failing_closed():
            counted = raise_counter(policy.counter, self._last_number)
        if counted > self._last_number:
            raise LedgerUnavailable(
                f"ledger {self._folder} ends at line {self._last_number}, the counter at "
                f"{counted}: it was rolled back to an older copy; put back the newest one"
            )

    def state_before(self, client: str, key: Key) -> bytes | None:
        """Return the state that a client's last release before this round left, if there is one.

        Only states of the same experiment count.
        """
        row = self._replies.execute(
            "SELECT state FROM states WHERE client = ? AND experiment = ? AND server_round < ? "
            "ORDER BY server_round DESC LIMIT 1",
            (client, key.experiment_id, key.server_round),
        ).fetchone()
        return None if row is None else row[0]

    def store(
        self,
        key: Key,
        oldest_round: int,
        answers: Iterable[tuple[str, np.ndarray | None, bytes | None]],
    ) -> None:
        """Keep replies and states, so that asking again costs nothing, in one transaction.

        Args:
            key: of the release.
            oldest_round: what the server can no more ask for again, before this round, is dropped.
            answers: client; grid steps, None: not kept; the state after the release, None: as
                before.
        """
        experiment, server_round, number = key.experiment_id, key.server_round, self._last_number
        db = self._replies
        with transaction(db):
            db.execute("UPDATE header SET last_number = ?", (number,))
            for client, steps, state in answers:
                if steps is not None:
                    blob = steps.astype("<i4").tobytes()
                    db.execute(
                        "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                        (client, experiment, server_round, key.request_hash, number, blob),
                    )
                if state is not None:
                    db.execute(
                        "INSERT OR REPLACE INTO states VALUES (?, ?, ?, ?, ?)",
                        (client, experiment, server_round, number, state),
                    )
                if steps is not None or state is not None:
                    self._drop_old(client, experiment, oldest_round)

    def releases(self, users: Iterable[str] = ()) -> dict[str, Counter[Event]]:
        """Return the releases about each user who has any, or about the given users."""
        events = self._events()
        if wanted := list(users):
            return {user: _counter(row.counts, events) for user, row in self._last(wanted).items()}
        rows = self._ledger.execute(
            "SELECT user, counts FROM lines WHERE number IN "
            "(SELECT max(number) FROM lines GROUP BY user)"
        )
        return {user: _counter(counts, events) for user, counts in rows}

    def lines(self) -> Iterator[Line]:
        """Return every line, oldest first."""
        events = self._events()
        for row in self._ledger.execute(
            "SELECT number, user, experiment, server_round, event, unix_seconds FROM lines "
            "ORDER BY number"
        ):
            number, user, experiment, server_round, event, seconds = row
            yield Line(number, user, experiment, server_round, events[event], seconds)

    def verify(self) -> int:
        """Check the whole chain, every line's counts and every reply; return the number of lines.

        Raises:
            LedgerUnavailable: naming the first line that is wrong.
        """
        with self._failing_closed():
            events, previous = self._event_texts(), self._first_hash
            counts: dict[str, dict[str, int]] = {}
            number = 0
            for row in self._ledger.execute("SELECT * FROM lines ORDER BY number"):
                number += 1
                *content, line_hash = row
                previous = _line_hash(previous, content, events.get(row[6], ""))
                mine = counts.setdefault(row[2], {})
                mine[str(row[6])] = mine.get(str(row[6]), 0) + 1
                if row[0] != number or line_hash != previous or json.loads(row[9]) != mine:
                    raise LedgerUnavailable(f"ledger {self._folder}: line {number} was changed")
            for client, experiment, server_round, of_line in self._replies.execute(
                "SELECT client, experiment, server_round, number FROM replies"
            ):
                if (
                    of_line > number
                    or not self._ledger.execute(
                        "SELECT 1 FROM lines WHERE experiment = ? AND server_round = ? LIMIT 1",
                        (experiment, server_round),
                    ).fetchone()
                ):
                    raise LedgerUnavailable(
                        f"ledger {self._folder}: the reply of {client} in round {server_round} has "
                        "no ledger line"
                    )
        return number

    def _open(self) -> None:
        with self._failing_closed():
            self._ledger = connect(self._folder / LEDGER)
            self._replies = connect(self._folder / REPLIES)
            self._ledger.execute("PRAGMA synchronous = FULL")
            self._replies.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
            version, ledger_id, owners = self._ledger.execute("SELECT * FROM header").fetchone()
            if version != VERSION:
                raise LedgerUnavailable(f"ledger {self._folder}: version {version}, not {VERSION}")
            if self._owners and owners != self._owners:
                raise LedgerUnavailable(
                    f"ledger {self._folder} is of other clients or users: a user would not be "
                    "charged; keep one folder for one way of dealing users to clients"
                )
            self._first_hash = _first_hash(ledger_id, owners)
            self._check_head()
            replies_id, replies_number = self._replies.execute("SELECT * FROM header").fetchone()
            if replies_id != ledger_id:
                raise LedgerUnavailable(f"ledger {self._folder}: replies are of another ledger")
            if replies_number > self._last_number:
                raise LedgerUnavailable(f"ledger {self._folder}: older than its replies")

    def _check_head(self) -> None:
        """Compare the last line with the head, which may be behind by one batch after a crash."""
        head = json.loads((self._folder / HEAD).read_text())
        rows = self._ledger.execute(
            "SELECT number, batch, hash FROM lines ORDER BY number DESC LIMIT 1"
        ).fetchall()
        number, batch, last_hash = rows[0] if rows else (0, 0, self._first_hash)
        if number > head["number"]:
            before = self._hash_of(batch - 1)
            if (batch - 1, before) != (head["number"], head["hash"]):
                raise LedgerUnavailable(f"ledger {self._folder}: its head is of another ledger")
            write_durably(self._folder / HEAD, _head(number, last_hash))
        elif (number, last_hash) != (head["number"], head["hash"]):
            raise LedgerUnavailable(f"ledger {self._folder}: its end was cut or changed")
        self._last_number, self._last_hash = number, last_hash

    def _hash_of(self, number: int) -> str:
        if number == 0:
            return self._first_hash
        row = self._ledger.execute("SELECT hash FROM lines WHERE number = ?", (number,)).fetchone()
        return str(row[0]) if row else ""

    @contextmanager
    def _failing_closed(self) -> Iterator[None]:
        try:
            yield
        except Refusal:
            raise
        except (OSError, sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise LedgerUnavailable(f"ledger {self._folder}: {error}") from error

    def _charged(self, key: Key) -> set[str]:
        """Return the users who were charged for this release."""
        rows = self._ledger.execute(
            "SELECT user FROM lines WHERE experiment = ? AND server_round = ? AND request_hash = ?",
            (key.experiment_id, key.server_round, key.request_hash),
        )
        return {user for (user,) in rows}

    def _kept(self, key: Key, clients: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the replies of these clients that were kept, in grid steps."""
        found: dict[str, np.ndarray] = {}
        if self._replies.execute("SELECT 1 FROM replies LIMIT 1").fetchone() is None:
            return found  # under seeded noise none is
        for client in clients:
            row = self._replies.execute(
                "SELECT steps FROM replies WHERE client = ? AND experiment = ? AND "
                "server_round = ? AND request_hash = ?",
                (client, key.experiment_id, key.server_round, key.request_hash),
            ).fetchone()
            if row is not None:
                found[client] = np.frombuffer(row[0], "<i4").astype(np.int64)
        return found

    def _require_separation(
        self, user: str, last_number: int, key: Key, policy: Policy | Budget
    ) -> None:
        """Refuse a release too near to another one about the user, in rounds or in time."""
        if not isinstance(policy, Policy):
            return
        if rounds := policy.min_separation_rounds:
            near = self._ledger.execute(
                "SELECT 1 FROM lines WHERE user = ? AND experiment = ? AND server_round > ? AND "
                "server_round < ? LIMIT 1",
                (user, key.experiment_id, key.server_round - rounds, key.server_round + rounds),
            ).fetchone()
            if near:
                limit = f"min-separation-rounds={rounds}"
                raise MinSeparation(f"round {key.server_round}: {limit}", limit)
        seconds = policy.min_separation_seconds
        if seconds and last_number and self._seconds_since(user, last_number) < seconds:
            limit = f"min-separation-seconds={seconds:g}"
            raise MinSeparation(f"{limit} have not passed", limit)

    def _seconds_since(self, user: str, last_number: int) -> float:
        """Return the time since the last line about a user, or less where it is not known.

        A line of another start of the machine, and one without a moment, which was written under a
        policy that separates no answers by time, are at least as old as this process.
        """
        self._ledger.execute(_MOMENTS_TABLE)
        row = self._ledger.execute(
            "SELECT boot, seconds FROM moments WHERE user = ? AND number = ?", (user, last_number)
        ).fetchone()
        now = self._uptime()
        return now.seconds - (row[1] if row and row[0] == now.boot else STARTED_SECONDS)

    def _append(
        self,
        charged: Mapping[str, str],
        key: Key,
        event: Event,
        policy: Policy | Budget,
    ) -> None:
        if not charged:
            return
        db, text = self._ledger, json.dumps(asdict(event), sort_keys=True)
        number, line_hash, batch = self._last_number, self._last_hash, self._last_number + 1
        by_policy, now = policy_hash(policy), self._clock()
        with transaction(db):
            db.execute("INSERT OR IGNORE INTO events (event) VALUES (?)", (text,))
            (event_id,) = db.execute("SELECT id FROM events WHERE event = ?", (text,)).fetchone()

            @cache
            def one_more(counts: str) -> str:
                before = json.loads(counts)
                return json.dumps({**before, str(event_id): before.get(str(event_id), 0) + 1})

            rows = []
            for user, counts in charged.items():
                number += 1
                content = [
                    number, batch, user, key.experiment_id, key.server_round, key.request_hash,
                    event_id, by_policy, now, one_more(counts),
                ]  # fmt: skip
                line_hash = _line_hash(line_hash, content, text)
                rows.append([*content, line_hash])
            db.executemany(f"INSERT INTO lines VALUES ({', '.join('?' * 11)})", rows)
            if isinstance(policy, Policy) and policy.min_separation_seconds:
                db.execute(_MOMENTS_TABLE)
                moment = self._uptime()
                db.executemany(
                    "INSERT OR REPLACE INTO moments VALUES (?, ?, ?, ?)",
                    [(row[2], row[0], *moment) for row in rows],
                )
        write_durably(self._folder / HEAD, _head(number, line_hash))
        self._last_number, self._last_hash = number, line_hash

    def _last(self, users: Sequence[str]) -> dict[str, _Last]:
        """Return what the last line about each user says, at a cost that no other line adds to."""
        found = self._ledger.execute(
            "SELECT user, counts, number FROM lines WHERE number IN (SELECT "
            "(SELECT max(number) FROM lines WHERE user = value) FROM json_each(?))",
            (json.dumps(users),),
        )
        none = _Last("{}", 0)
        return dict.fromkeys(users, none) | {user: _Last(*row) for user, *row in found}

    def _event_texts(self) -> dict[int, str]:
        return dict(self._ledger.execute("SELECT id, event FROM events"))

    def _events(self) -> dict[int, Event]:
        return {number: _event(text) for number, text in self._event_texts().items()}

    def _drop_old(self, client: str, experiment: str, oldest_round: int) -> None:
        db, mine = self._replies, (client, experiment, oldest_round)
        db.execute(
            "DELETE FROM replies WHERE client = ? AND experiment = ? AND server_round < ?", mine
        )
        db.execute(
            "DELETE FROM states WHERE client = ? AND experiment = ? AND server_round < "
            "(SELECT max(server_round) FROM states WHERE client = ? AND experiment = ? "
            "AND server_round < ?)",
            (client, experiment, *mine),
        )
        for table in ("replies", "states"):
            db.execute(
                f"DELETE FROM {table} WHERE client = ? AND experiment NOT IN (SELECT experiment "
                f"FROM {table} WHERE client = ? GROUP BY experiment ORDER BY max(number) DESC "
                "LIMIT ?)",
                (client, client, KEPT_EXPERIMENTS),
            )


def has_line(folder: Path) -> bool:
    """Tell whether a folder holds a ledger of a release, whatever is missing beside it."""
    if not (folder / LEDGER).exists():
        return False
    with database(folder / LEDGER) as ledger:
        tables = [name for (name,) in ledger.execute("SELECT name FROM sqlite_master")]
        return "lines" in tables and bool(ledger.execute("SELECT 1 FROM lines LIMIT 1").fetchone())


def policy_hash(policy: Policy | Budget) -> str:
    """Return the hash of a policy's limits; empty for a server's own budget."""
    return policy.hash() if isinstance(policy, Policy) else ""


def _refuse_replay(event: Event, policy: Policy | Budget) -> None:
    if not isinstance(policy, Policy):
        return
    if policy.lost_replies == "refuse" or event.trust == "secure-aggregation":
        limit = f"lost-replies={policy.lost_replies}"
        raise Replay("answered before, and the reply is not kept any more", limit)


def _head(number: int, last_hash: str) -> bytes:
    return json.dumps({"number": number, "hash": last_hash}).encode()


def _first_hash(ledger_id: str, owners: str) -> str:
    return hashlib.sha256(f"{VERSION} {ledger_id} {owners}".encode()).hexdigest()


def _line_hash(previous: str, content: Sequence[Any], event_text: str) -> str:
    text = json.dumps([previous, *content, event_text])
    return hashlib.sha256(text.encode()).hexdigest()


def _counter(counts: str, events: Mapping[int, Event]) -> Counter[Event]:
    return Counter({events[int(number)]: count for number, count in json.loads(counts).items()})


@lru_cache(maxsize=1024)
def _event(text: str) -> Event:
    return _EVENT.validate_json(text)
