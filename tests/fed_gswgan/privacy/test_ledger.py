"""Promises of the ledger: charged on disk before a release, never refunded, closed when damaged."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest

from fed_gswgan.privacy import counter
from fed_gswgan.privacy import ledger as module
from fed_gswgan.privacy.ledger import (
    HEAD,
    LEDGER,
    REPLIES,
    Ledger,
    Line,
    Uptime,
    owners_hash,
    uptime,
)
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Budget, Policy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerLocked,
    LedgerUnavailable,
    MinSeparation,
    Replay,
    TooManyParticipations,
)

EVENT = Event(rows=4, numbers=1, clipping_bound=1.0, noise_stddev=8.0)  # mu = 0.5
SHARES = replace(EVENT, trust="secure-aggregation", honest=2)
USERS = {"alice": ("a",), "bob": ("b1", "b2")}
OWNERS = owners_hash(USERS)
POLICY = Policy(max_epsilon=100.0)
limits = partial(Policy, max_epsilon=100.0)
REFUSING = limits(lost_replies="refuse")
STEPS = {"alice": np.array([1, -(2**31), 3]), "bob": np.array([2**31 - 1, 0, -5])}


FILES = (LEDGER, HEAD, REPLIES)


class Key(NamedTuple):
    server_round: int
    request_hash: str = "h"
    experiment_id: str = "e"


@pytest.fixture
def folder(tmp_path):
    Ledger.create(tmp_path / "ledger", OWNERS)
    return tmp_path / "ledger"


def reserve(
    folder, key, clients=USERS, policy=POLICY, event=EVENT, recompute=False, seconds=0.0,
    moment=None,
):  # fmt: skip
    """Reserve one round in a session of its own, and keep no reply."""
    now = moment or uptime()
    with Ledger(folder, OWNERS, clock=lambda: seconds, uptime=lambda: now) as ledger:
        return ledger.reserve(clients, key, event, policy, recompute)


def answer(folder, key, oldest_round=1):
    """Reserve one round and keep reply and state of everybody who is charged."""
    with Ledger(folder, OWNERS) as ledger:
        todo = ledger.reserve(USERS, key, EVENT, POLICY).todo
        state = b"after %d" % key.server_round
        ledger.store(key, oldest_round, [(client, STEPS[client], state) for client in todo])


def charges(folder):
    with Ledger(folder) as ledger:
        return {user: events.total() for user, events in ledger.releases().items()}


def verify(folder):
    with Ledger(folder) as ledger:
        return ledger.verify()


def edit(path, statement):
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()


class TestCharges:
    def test_every_user_of_a_client_is_charged_on_disk_at_once(self, folder):
        with Ledger(folder, OWNERS) as ledger:
            reserved = ledger.reserve(USERS, Key(1), EVENT, POLICY)
            with sqlite3.connect(f"file:{folder / LEDGER}?mode=ro", uri=True) as seen:
                users = [user for (user,) in seen.execute("SELECT user FROM lines")]
            head = json.loads((folder / HEAD).read_text())
        assert (reserved.kept, reserved.todo, reserved.refused) == ({}, ["alice", "bob"], {})
        assert users == ["a", "b1", "b2"]
        assert head["number"] == 3

    def test_what_was_spent_is_told_by_user_event_and_line(self, folder):
        reserve(folder, Key(1), seconds=1000.5)
        reserve(folder, Key(2), {"bob": USERS["bob"]}, event=SHARES, seconds=2000.0)
        both = Counter({EVENT: 1, SHARES: 1})
        with Ledger(folder) as ledger:
            assert ledger.releases() == {"a": Counter({EVENT: 1}), "b1": both, "b2": both}
            assert ledger.releases(["b2", "c"]) == {"b2": both, "c": Counter()}
            last = Line(5, "b2", "e", 2, SHARES, 2000.0)
            assert list(ledger.lines())[3:] == [last._replace(number=4, user="b1"), last]

    def test_a_client_stops_with_the_first_of_its_users(self, folder):
        """Nothing is charged for who is refused, and others are answered beside them."""
        reserve(folder, Key(1), {"bob": ("b2",)})
        reserved = reserve(folder, Key(2), policy=limits(max_participations=1))
        assert (reserved.todo, reserved.refused.keys()) == (["alice"], {"bob"})
        assert type(reserved.refused["bob"]) is TooManyParticipations
        assert charges(folder) == {"a": 1, "b2": 1}

    def test_a_user_of_two_clients_is_refused_not_charged_once(self, folder):
        with pytest.raises(LedgerUnavailable, match="must not have two clients"):
            reserve(folder, Key(1), USERS | {"carol": ("b2",)})
        assert charges(folder) == {}

    @pytest.mark.parametrize("kind", [Budget, Policy])
    def test_the_last_epsilon_is_spent_and_no_more(self, folder, kind):
        # mu of n releases is 0.5 sqrt(n): of nine 1.5, for which epsilon is 7.05 at 1e-5.
        policy = kind(max_epsilon=7.06)
        for server_round in range(9):
            assert reserve(folder, Key(server_round), policy=policy).todo == ["alice", "bob"]
        refused = reserve(folder, Key(10), policy=policy).refused
        assert {type(refusal) for refusal in refused.values()} == {BudgetExhausted}
        assert charges(folder) == dict.fromkeys(("a", "b1", "b2"), 9)

    def test_a_reservation_is_never_refunded(self, folder, monkeypatch):
        reserve(folder, Key(1))  # and then computing fails
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_durably", Mock(side_effect=OSError("disk full")))
            with pytest.raises(LedgerUnavailable, match="disk full"):  # after the line
                reserve(folder, Key(2))
        assert set(charges(folder).values()) == {2}

    def test_a_reservation_reads_as_much_of_a_long_ledger_as_of_a_short(self, folder, monkeypatch):
        """Counted in instructions of SQLite's virtual machine, of everything that a round does."""
        steps = Counter()

        def count_instructions(path, **options):
            database = connect(path, **options)
            database.set_progress_handler(lambda: steps.update(total=1), 1)
            return database

        careful = limits(min_separation_rounds=2, min_separation_seconds=1e-9)
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", count_instructions)

        def cost(key):
            steps.clear()
            with Ledger(folder) as ledger:
                reserved = ledger.reserve({"alice": ("a",)}, key, EVENT, careful)
                assert reserved.todo == ["alice"]
                assert ledger.state_before("alice", key)
                ledger.store(key, key.server_round, [("alice", STEPS["alice"], b"state")])
            return steps.total()

        answer(folder, Key(1))
        cost(Key(3))
        short = cost(Key(5))
        for server_round in range(7, 47, 2):
            answer(folder, Key(server_round), oldest_round=server_round)
        reserve(folder, Key(1), {"many": tuple(f"user {i}" for i in range(3000))})
        assert cost(Key(101)) <= short * 1.05


class TestRepeats:
    def test_under_central_trust_a_repeat_is_charged(self, folder):
        central = replace(EVENT, trust="central")
        with Ledger(folder, OWNERS) as ledger:
            todo = ledger.reserve(USERS, Key(1), central, POLICY).todo
            ledger.store(Key(1), 1, [(client, STEPS[client], None) for client in todo])
        reserved = reserve(folder, Key(1), event=central)
        assert (set(reserved.kept), reserved.todo) == (set(USERS), [])
        assert set(charges(folder).values()) == {2}
        reserve(folder, Key(1), event=central, recompute=True)  # its noise is seeded, too
        assert set(charges(folder).values()) == {2}

    def test_a_kept_reply_is_returned_at_no_charge(self, folder):
        answer(folder, Key(1))
        reserved = reserve(folder, Key(1), USERS | {"carol": ("c",)})
        assert [reserved.kept[c].tolist() for c in USERS] == [STEPS[c].tolist() for c in USERS]
        assert reserved.todo == ["carol"]
        assert charges(folder) == {"a": 1, "b1": 1, "b2": 1, "c": 1}

    @pytest.mark.parametrize("key", [Key(2), Key(1, "i"), Key(1, "h", "f")])
    @pytest.mark.parametrize("recompute", [False, True])
    def test_any_other_key_is_another_release(self, folder, key, recompute):
        answer(folder, Key(1))
        reserved = reserve(folder, key, recompute=recompute)
        assert (reserved.kept, reserved.todo) == ({}, ["alice", "bob"])
        assert set(charges(folder).values()) == {2}

    @pytest.mark.parametrize(
        ("policy", "event", "recompute", "charged"),
        [
            (POLICY, EVENT, False, 2),
            (Budget(), EVENT, False, 2),  # a server's own ledger
            (REFUSING, EVENT, False, None),
            (POLICY, SHARES, False, None),  # a second share would leave less noise in a sum
            (POLICY, EVENT, True, 1),
            (POLICY, SHARES, True, 1),
            (REFUSING, EVENT, True, 1),
            (limits(max_participations=1), EVENT, True, 1),
        ],
    )
    def test_a_lost_reply_is_charged_refused_or_recomputed(
        self, folder, policy, event, recompute, charged
    ):
        reserve(folder, Key(1), event=event)  # and the process dies before it keeps the reply
        reserved = reserve(folder, Key(1), USERS, policy, event, recompute)
        if charged is None:
            assert {type(refusal) for refusal in reserved.refused.values()} == {Replay}
        else:
            assert reserved.todo == ["alice", "bob"]
        assert set(charges(folder).values()) == {charged or 1}


class TestKept:
    def test_a_state_is_that_of_the_last_round_before(self, folder):
        for key in (Key(1), Key(3), Key(2, "h", "f")):
            answer(folder, key)
        with Ledger(folder) as ledger:
            ledger.store(Key(5), 1, [("bob", STEPS["bob"], None)])  # and leaves it as it was
            found = [ledger.state_before("bob", Key(r)) for r in (1, 2, 3, 4, 9)]
            assert found == [None, b"after 1", b"after 1", b"after 3", b"after 3"]
            assert ledger.state_before("bob", Key(9, "h", "f")) == b"after 2"
            assert ledger.state_before("carol", Key(9)) is None

    def test_what_a_server_may_ask_again_is_kept_and_no_more(self, folder):
        """A server that resumes after round 4 asks for 5 on, from the state before 5."""
        for server_round in (1, 2, 4, 6, 7):
            answer(folder, Key(server_round), oldest_round=5 if server_round == 7 else 1)
        with Ledger(folder) as ledger:
            states = {r: ledger.state_before("alice", Key(r)) for r in (3, 5, 6, 7, 8)}
        assert states == {3: None, 5: b"after 4", 6: b"after 4", 7: b"after 6", 8: b"after 7"}
        kept = {r: set(reserve(folder, Key(r)).kept) for r in (4, 6, 7)}
        assert kept == {4: set(), 6: set(USERS), 7: set(USERS)}

    def test_replies_of_the_last_four_experiments_are_kept(self, folder):
        for experiment in "abcdef":
            answer(folder, Key(1, "h", experiment))
        kept = [e for e in "abcdef" if reserve(folder, Key(1, "h", e)).kept]
        assert kept == list("cdef")
        with Ledger(folder) as ledger:
            states = [ledger.state_before("bob", Key(2, "h", e)) for e in "bc"]
        assert states == [None, b"after 1"]


class TestSeparation:
    def test_rounds_must_pass_within_an_experiment(self, folder):
        patient = limits(min_separation_rounds=3)
        reserve(folder, Key(10), {"bob": ("b2",)})
        for server_round, refused in ((8, True), (10, True), (12, True), (13, False), (7, False)):
            reserved = reserve(folder, Key(server_round, "i"), policy=patient)
            assert isinstance(reserved.refused.get("bob"), MinSeparation) == refused
        assert reserve(folder, Key(11, "h", "f"), policy=patient).refused == {}

    @pytest.mark.parametrize("wall", [0.0, 1e9], ids=["set back", "set forward"])
    def test_seconds_must_pass_whatever_experiment_and_wall_clock(self, folder, wall):
        patient = limits(min_separation_seconds=60.0)
        reserve(folder, Key(1), policy=patient, seconds=1e6, moment=Uptime("boot", 1000.0))
        for seconds in (1000.0, 1059.0, 900.0):  # less than before: the machine was copied
            reserved = reserve(
                folder, Key(5, "h", "f"), policy=patient, seconds=wall,
                moment=Uptime("boot", seconds),
            )  # fmt: skip
            assert {type(refusal) for refusal in reserved.refused.values()} == {MinSeparation}
            assert reserved.refused["bob"].limit == "min-separation-seconds=60"
        now = Uptime("boot", 1060.0)
        assert reserve(folder, Key(5), policy=patient, moment=now).todo == ["alice", "bob"]

    @pytest.mark.parametrize("before", [limits(min_separation_seconds=60.0), POLICY])
    def test_seconds_count_from_the_guards_start_where_the_time_is_not_known(
        self, folder, before, monkeypatch
    ):
        """After the machine started anew, and after a policy that separates no answers."""
        patient = limits(min_separation_seconds=60.0)
        reserve(folder, Key(1), policy=before, moment=Uptime("boot", 5.0))
        monkeypatch.setattr(module, "STARTED_SECONDS", 100.0)
        for seconds, refused in ((105.0, True), (159.0, True), (160.0, False)):
            now = Uptime("another boot", seconds)
            assert bool(reserve(folder, Key(5), policy=patient, moment=now).refused) == refused
        now = Uptime("another boot", 219.0)
        assert reserve(folder, Key(6), policy=patient, moment=now).refused


COUNTER = """#!/bin/sh
# Keeps the highest number that it was called with.
last=$(cat {state} 2>/dev/null || echo 0)
[ "$1" -gt "$last" ] && last=$1
echo "$last" | tee {state}
"""


@pytest.fixture
def counted(tmp_path):
    """Return a policy whose counter is a program; it keeps its state beside the ledger."""

    def make(text=COUNTER):
        program = tmp_path / "counter"
        program.write_text(text.format(state=tmp_path / "counted"))
        program.chmod(0o700)
        return limits(counter=str(program))

    return make


class TestCounter:
    def test_an_older_copy_of_all_files_is_refused(self, folder, counted):
        """Which nothing on the disk could tell; nothing is charged, and the newest one works."""
        policy, clients = counted(), {"alice": ("a",)}
        reserve(folder, Key(1), clients, policy)
        shutil.copytree(folder, folder.parent / "old")
        reserve(folder, Key(2), clients, policy)
        shutil.copytree(folder, folder.parent / "newest")
        shutil.copytree(folder.parent / "old", folder, dirs_exist_ok=True)
        assert verify(folder) == 1
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match=r"line 1, the counter at 2: it was rolled"):
                reserve(folder, Key(3), clients, policy)
        assert charges(folder) == {"a": 1}
        shutil.copytree(folder.parent / "newest", folder, dirs_exist_ok=True)
        assert reserve(folder, Key(3), clients, policy).todo == ["alice"]

    def test_a_crash_between_charge_and_counter_is_no_rollback(self, folder, counted):
        """So is a counter that an owner begins later, with a ledger that has lines."""
        reserve(folder, Key(1))
        assert reserve(folder, Key(2), policy=counted()).todo == ["alice", "bob"]
        assert (folder.parent / "counted").read_text() == "6\n"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "No such file"), ("#!/bin/sh\nexit 1", "status 1"),
            ("#!/bin/sh\necho 0; echo 0", "must print"), ("#!/bin/sh\n", "must print"),
            ("#!/bin/sh\necho -1", "must print"), ("#!/bin/sh\nexec sleep 60", "timed out"),
            # it counts no more once there is a line
            ("#!/bin/sh\necho 0", "must print a whole number >= 3"),
        ],
    )  # fmt: skip
    def test_a_counter_that_cannot_be_asked_refuses_all(
        self, folder, counted, monkeypatch, text, said
    ):
        monkeypatch.setattr(counter, "PATIENCE_SECONDS", 0.5 if text and "sleep" in text else 60.0)
        policy = counted() if text is None else counted(text)
        if text is None:
            (folder.parent / "counter").unlink()
        with pytest.raises(LedgerUnavailable, match=said):
            reserve(folder, Key(1), policy=policy)


def restore(folder, *names, of=0):
    for name in names:
        shutil.copy(folder.parent / f"after {of}" / name, folder)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def rewrite_head(folder, **fields):
    head = json.loads((folder / HEAD).read_text())
    (folder / HEAD).write_text(json.dumps(head | fields))


DAMAGE = {
    "no folder": shutil.rmtree,
    **{f"no {name}": lambda f, n=name: (f / n).unlink() for name in FILES},
    **{f"empty {name}": lambda f, n=name: os.truncate(f / n, 0) for name in FILES},
    **{f"half {name}": lambda f, n=name: halve(f / n) for name in FILES},
    **{f"noise in {name}": lambda f, n=name: (f / n).write_bytes(bytes(99)) for name in FILES},
    "a head of another kind": lambda f: (f / HEAD).write_text("[1, 2]"),
    **{
        change: lambda f, change=change: edit(f / LEDGER, change)
        for change in (
            "UPDATE lines SET hash = 'x'", "DELETE FROM lines WHERE number = 12",
            "DELETE FROM lines", "DELETE FROM header", "UPDATE header SET version = 1",
            "UPDATE header SET ledger_id = 'x'", "UPDATE header SET owners = 'x'",
        )
    },
    "a head of a line to come": lambda f: rewrite_head(f, number=13),
    "a head of another hash": lambda f: rewrite_head(f, hash="0" * 64),
    "a head of another batch": lambda f: rewrite_head(f, number=10),
    "a head behind, of another hash": lambda f: rewrite_head(f, number=9),
    "a head two batches behind": lambda f: restore(f, HEAD, of=2),
    "an older ledger": lambda f: restore(f, LEDGER, of=3),
    "older ledger and head": lambda f: restore(f, LEDGER, HEAD, of=3),
    "a new ledger and head": lambda f: restore(f, LEDGER, HEAD, of=0),
    "replies of another ledger": lambda f: shutil.copy(f.parent / "other" / REPLIES, f),
    "a ledger of other users": lambda f: shutil.copytree(f.parent / "other", f, dirs_exist_ok=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def four_rounds(tmp_path_factory):
    """Return a folder with a ledger of four rounds, and with copies of it as it was after each."""
    parent = tmp_path_factory.mktemp("four-rounds")
    Ledger.create(parent / "ledger", OWNERS)
    Ledger.create(parent / "other", owners_hash({"carol": ("c",)}))
    for server_round in range(5):
        if server_round:
            answer(parent / "ledger", Key(server_round))
        shutil.copytree(parent / "ledger", parent / f"after {server_round}")
    return parent


@pytest.fixture
def long_folder(four_rounds, tmp_path):
    shutil.copytree(four_rounds, tmp_path / "copy")
    return tmp_path / "copy" / "ledger"


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_a_damaged_ledger_counts_as_exhausted(self, long_folder, damage):
        DAMAGE[damage](long_folder)
        for _ in range(2):  # opening repairs nothing
            with pytest.raises(LedgerUnavailable):
                reserve(long_folder, Key(5))
        assert LedgerUnavailable.code == BudgetExhausted.code
        assert LedgerUnavailable("the folder").limit == ""

    def test_a_crash_between_line_and_head_is_repaired(self, long_folder, folder):
        restore(long_folder, HEAD, of=3)
        assert set(charges(long_folder).values()) == {4}
        assert json.loads((long_folder / HEAD).read_text())["number"] == 12
        assert set(reserve(long_folder, Key(4)).kept) == set(USERS)
        first = (folder / HEAD).read_bytes()  # the same in the first round
        reserve(folder, Key(1))
        (folder / HEAD).write_bytes(first)
        assert set(charges(folder).values()) == {1}

    def test_older_replies_are_lost_replies(self, long_folder):
        restore(long_folder, REPLIES, of=3)
        assert set(reserve(long_folder, Key(3)).kept) == set(USERS)
        assert reserve(long_folder, Key(4)).todo == ["alice", "bob"]
        assert set(charges(long_folder).values()) == {5}

    def test_a_reply_without_its_line_exhausts_the_ledger(self, long_folder):
        edit(long_folder / REPLIES, "UPDATE replies SET server_round = 9 WHERE server_round = 4")
        with pytest.raises(LedgerUnavailable, match="a reply has no ledger line"):
            reserve(long_folder, Key(9))
        with pytest.raises(LedgerUnavailable, match="round 9 has no"):
            verify(long_folder)
        assert set(charges(long_folder).values()) == {4}

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE events SET event = replace(event, '8.0', '80.0')",
            "DELETE FROM lines WHERE number = 5",
            *(
                f"UPDATE lines SET {column} = {value} WHERE number = 5"
                for column, value in {
                    "batch": 5, "user": "'c'", "experiment": "'f'", "server_round": 9,
                    "request_hash": "'i'", "event": 2, "policy": "''", "unix_seconds": 0,
                    "counts": "'{}'", "hash": "'x'",
                }.items()
            ),
        ],
    )  # fmt: skip
    def test_verify_names_the_first_line_that_was_changed(self, long_folder, change):
        assert verify(long_folder) == 12
        edit(long_folder / LEDGER, change)
        with pytest.raises(LedgerUnavailable, match=r"line [15] was"):
            verify(long_folder)


class TestFolder:
    @pytest.mark.parametrize("left", FILES)
    def test_a_ledger_is_created_once(self, folder, left):
        for name in set(FILES) - {left}:
            (folder / name).unlink()
        with pytest.raises(FileExistsError, match="it stays"):
            Ledger.create(folder, OWNERS)

    def test_a_new_ledger_has_spent_nothing_and_is_the_owners_alone(self, folder):
        assert charges(folder) == {}
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES} == {0o600}
        assert owners_hash(dict(reversed(USERS.items()))) == OWNERS
        swapped = {"alice": ("b1",), "bob": ("a", "b2")}
        for users in ({"alice": ("a",)}, USERS | {"carol": ("c",)}, swapped):
            ledger = Ledger(folder, owners_hash(users))
            with pytest.raises(LedgerUnavailable, match="of other clients or users"):
                ledger.__enter__()

    def test_a_second_process_waits_or_is_told_that_it_is_locked(self, folder, monkeypatch):
        holder = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from pathlib import Path\n"
            "from tests.fed_gswgan.privacy.test_ledger import *\n"
            "with Ledger(Path(sys.argv[1])) as ledger:\n"
            "    ledger.reserve(USERS, Key(1), EVENT, POLICY)\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        root = str(module.Path(__file__).parents[3])
        command = [sys.executable, "-c", holder, str(folder), root]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
            ThreadPoolExecutor(1) as pool,
        ):
            assert process.stdout.readline() == b"held\n"
            monkeypatch.setattr(module, "LOCK_PATIENCE_SECONDS", 0.1)
            with pytest.raises(LedgerLocked, match="another process holds it"):
                charges(folder)
            monkeypatch.undo()
            waiting = pool.submit(charges, folder)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            process.kill()  # what it reserved stays
            assert waiting.result(timeout=50) == {"a": 1, "b1": 1, "b2": 1}
