import math
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import fed_gswgan
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerUnavailable,
    MinSeparation,
    Replay,
    TooManyParticipations,
)
from fed_gswgan.privacy.user_ledgers import UserLedgers

REPOSITORY = Path(fed_gswgan.__file__).parents[1]
# mu = 2 / 8 = 0.25 under replace-one: three releases spend 0.43, four 0.5.
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
USERS = ("f0001",)
THREE_RELEASES = DevicePolicy(delta=1e-5, max_epsilon=gaussian_epsilon(0.47, 1e-5))
NO_LIMIT = DevicePolicy()
THREE_ROUNDS = DevicePolicy(min_separation_rounds=3)
TEN_SECONDS = DevicePolicy(min_separation_seconds=10.0)


def key(server_round=1, experiment_id="experiment", request_hash="ab" * 32):
    return ReleaseKey(experiment_id, server_round, request_hash)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger.create(path, USERS)
    return path


def test_last_affordable_release_is_allowed_and_the_next_is_refused(path):
    ledger = Ledger(path, USERS, THREE_RELEASES)
    for server_round in (1, 2, 3):
        ledger.reserve(key(server_round), EVENT)
    before = path.read_bytes()
    with pytest.raises(BudgetExhausted):
        ledger.reserve(key(4), EVENT)
    assert path.read_bytes() == before
    assert ledger.releases() == {"f0001": Counter({EVENT: 3})}


def test_refusal_names_setting_value_and_rule(path):
    budget = DevicePolicy(delta=1e-3, max_epsilon=0.01)
    with pytest.raises(
        BudgetExhausted, match=r"^max-epsilon=0.01 would .*delta=0.001 under replace-one"
    ):
        Ledger(path, USERS, budget).reserve(key(), EVENT)


def test_refusal_outlives_the_process(path):
    for server_round in (1, 2, 3):
        Ledger(path, USERS, THREE_RELEASES).reserve(key(server_round), EVENT)
    with pytest.raises(BudgetExhausted):
        Ledger(path, USERS, THREE_RELEASES).reserve(key(4), EVENT)


def test_a_cheaper_release_still_fits_where_a_dear_one_does_not(path):
    ledger = Ledger(path, USERS, THREE_RELEASES)
    dear = SanitizedGradientEvent(
        samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0
    )  # mu = 0.5
    with pytest.raises(BudgetExhausted):
        ledger.reserve(key(), dear)
    ledger.reserve(key(), EVENT)
    assert ledger.releases() == {"f0001": Counter({EVENT: 1})}


def test_relation_of_the_budget_decides_how_far_it_reaches(path):
    # Under zero-out mu is half as large, so four times as many releases fit: 0.47^2 x 64 = 14.1.
    budget = DevicePolicy(
        neighboring_relation="zero-out", delta=1e-5, max_epsilon=THREE_RELEASES.max_epsilon
    )
    ledger = Ledger(path, USERS, budget)
    for server_round in range(1, 15):
        ledger.reserve(key(server_round), EVENT)
    with pytest.raises(BudgetExhausted, match="zero-out"):
        ledger.reserve(key(15), EVENT)


def test_every_user_of_the_client_is_charged(tmp_path):
    users = ("f0001", "f0002")
    Ledger.create(tmp_path / "ledger", users)
    ledger = Ledger(tmp_path / "ledger", users, NO_LIMIT)
    assert ledger.releases() == {"f0001": Counter(), "f0002": Counter()}
    ledger.reserve(key(), EVENT)
    assert ledger.releases() == {"f0001": Counter({EVENT: 1}), "f0002": Counter({EVENT: 1})}
    with LedgerFile(tmp_path / "ledger").locked() as file:
        assert [entry["user"] for entry in file.entries] == ["f0001", "f0002"]


def test_infinite_max_epsilon_never_refuses(path):
    assert math.isinf(NO_LIMIT.max_epsilon)
    loud = SanitizedGradientEvent(
        samples=10**6, clipping="sample", clipping_bound=1.0, noise_stddev=1e-6
    )
    ledger = Ledger(path, USERS, NO_LIMIT)
    for server_round in range(1, 6):
        ledger.reserve(key(server_round), loud)
    assert ledger.releases()["f0001"].total() == 5


def test_same_release_asked_twice_is_charged_twice(path):
    ledger = Ledger(path, USERS, NO_LIMIT)
    ledger.reserve(key(), EVENT)
    ledger.reserve(key(), EVENT)
    assert ledger.releases()["f0001"] == Counter({EVENT: 2})


def test_entry_holds_the_key_and_the_event(path):
    Ledger(path, USERS, NO_LIMIT).reserve(key(7), EVENT)
    with LedgerFile(path).locked() as file:
        (entry,) = file.entries
    assert entry["experiment_id"] == "experiment"
    assert entry["server_round"] == 7
    assert entry["request_hash"] == "ab" * 32
    assert SanitizedGradientEvent(**entry["event"]) == EVENT


def test_entry_holds_the_time_and_the_policy_that_allowed_it(path):
    Ledger(path, USERS, THREE_RELEASES, lambda: 1234.5).reserve(key(), EVENT)
    with LedgerFile(path).locked() as file:
        (entry,) = file.entries
    assert (entry["unix_seconds"], entry["policy"]) == (1234.5, THREE_RELEASES.hash())


def test_two_ledgers_on_one_path_share_one_budget(path):
    first, second = Ledger(path, USERS, THREE_RELEASES), Ledger(path, USERS, THREE_RELEASES)
    first.reserve(key(1), EVENT)
    second.reserve(key(1), EVENT)
    first.reserve(key(2), EVENT)
    with pytest.raises(BudgetExhausted):
        second.reserve(key(2), EVENT)


def test_missing_ledger_is_not_created(tmp_path):
    with pytest.raises(LedgerUnavailable):
        Ledger(tmp_path / "ledger", USERS, NO_LIMIT).reserve(key(), EVENT)
    assert not (tmp_path / "ledger").exists()


def test_create_refuses_a_second_time(path):
    with pytest.raises(FileExistsError):
        Ledger.create(path, USERS)


def test_valid_ledger_of_the_server_is_unavailable_to_a_device(tmp_path):
    UserLedgers.create(tmp_path / "server")
    UserLedgers(tmp_path / "server", NO_LIMIT).record(1, ["f0001"], EVENT)
    before = (tmp_path / "server").read_bytes()
    with pytest.raises(LedgerUnavailable, match="users"):
        Ledger(tmp_path / "server", USERS, NO_LIMIT).reserve(key(), EVENT)
    assert (tmp_path / "server").read_bytes() == before


@pytest.mark.parametrize(
    "entry",
    [
        {"clients": ["f0001"]},
        {"user": "f0002", "event": {}},
        {"user": "f0001", "event": {"samples": 1}},
        {"user": "f0001", "event": {"kind": "other"}},
        {
            "user": "f0001",
            "event": {
                "samples": 1,
                "clipping": "sample",
                "clipping_bound": 1.0,
                "noise_stddev": -1.0,
            },
        },
    ],
)
def test_entry_that_is_no_release_makes_the_ledger_unavailable(path, entry):
    ledger = Ledger(path, USERS, NO_LIMIT)
    ledger.reserve(key(), EVENT)
    with LedgerFile(path).locked() as file:
        file.append([entry])
    for reader in (ledger, Ledger(path, USERS, NO_LIMIT)):
        for _ in range(2):  # and it does not recover by being asked again
            with pytest.raises(LedgerUnavailable):
                reader.reserve(key(2), EVENT)


def test_reservation_survives_a_process_killed_right_after_reserve(path):
    code = """
import os, signal, sys
from pathlib import Path
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.ledger import Ledger, ReleaseKey
event = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
ledger = Ledger(Path(sys.argv[1]), ("f0001",), DevicePolicy())
ledger.reserve(ReleaseKey("experiment", 1, "ab" * 32), event)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert Ledger(path, USERS, NO_LIMIT).releases() == {"f0001": Counter({EVENT: 1})}


def test_copies_handed_out_do_not_change_the_ledger(path):
    ledger = Ledger(path, USERS, NO_LIMIT)
    ledger.releases()["f0001"][EVENT] += 100
    assert ledger.releases() == {"f0001": Counter()}


@pytest.mark.parametrize(
    "written",
    [(), ("f0001",), ("f0001", "f0003"), ("f0001", "f0002", "f0003"), ("f0003", "f0004")],
    ids=["none", "fewer", "another", "more", "others"],
)
def test_ledger_of_other_users_is_unavailable_and_left_as_it_is(tmp_path, written):
    Ledger.create(tmp_path / "ledger", written)
    before = (tmp_path / "ledger").read_bytes()
    ledger = Ledger(tmp_path / "ledger", ("f0001", "f0002"), NO_LIMIT)
    for _ in range(2):  # and it does not recover by being asked again
        with pytest.raises(LedgerUnavailable, match="would not be charged"):
            ledger.reserve(key(), EVENT)
        with pytest.raises(LedgerUnavailable):
            ledger.releases()
    assert (tmp_path / "ledger").read_bytes() == before


def test_ledger_of_no_users_charges_nobody_and_so_refuses_everything(tmp_path):
    Ledger.create(tmp_path / "ledger", ())
    with pytest.raises(LedgerUnavailable):
        Ledger(tmp_path / "ledger", (), NO_LIMIT).reserve(key(), EVENT)


def test_ledger_without_a_list_of_users_is_unavailable(tmp_path):
    LedgerFile.create(tmp_path / "ledger", {"users": "f0001"})
    with pytest.raises(LedgerUnavailable):
        Ledger(tmp_path / "ledger", USERS, NO_LIMIT).reserve(key(), EVENT)


def reserved(ledger, *keys):
    for asked in keys:
        ledger.reserve(asked, EVENT)


def assert_refused(path, ledger, refusal, asked, said):
    before = path.read_bytes()
    with pytest.raises(refusal, match=said):
        ledger.reserve(asked, EVENT)
    assert path.read_bytes() == before


def test_participations_are_counted_over_experiments_and_processes(path):
    policy = DevicePolicy(max_participations=3)
    reserved(Ledger(path, USERS, policy), key(1), key(1, "another"))
    reserved(Ledger(path, USERS, policy), key(1))  # a repeat that was charged again counts too
    for asked in (key(2), key(1), key(9, "a third")):
        assert_refused(
            path, Ledger(path, USERS, policy), TooManyParticipations, asked,
            "^max-participations=3 would be passed: 3 so far",
        )  # fmt: skip


def test_one_user_at_the_limit_is_enough_to_refuse(tmp_path):
    """A crash between the lines of two users charges the first of them alone."""
    path, users = tmp_path / "ledger.jsonl", ("f0001", "f0002")
    Ledger.create(path, users)
    head = path.with_suffix(".head").read_bytes()
    ledger = Ledger(path, users, DevicePolicy(max_participations=1))
    reserved(ledger, key(1))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    path.with_suffix(".head").write_bytes(head)
    ledger = Ledger(path, users, DevicePolicy(max_participations=1))
    assert ledger.releases() == {"f0001": Counter({EVENT: 1}), "f0002": Counter()}
    assert_refused(path, ledger, TooManyParticipations, key(2), "this user answers no more")


@pytest.mark.parametrize(
    ("answered", "asked", "too_near"),
    [
        ([1], 2, 1),
        ([1], 3, 1),
        ([1, 4], 6, 4),
        ([10], 10, 10),  # the same round, asked otherwise
        ([10], 8, 10),  # a server that fell back
        ([10, 4], 6, 4),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_round_nearer_than_the_separation_is_refused(path, answered, asked, too_near, restarted):
    ledger = Ledger(path, USERS, THREE_ROUNDS)
    reserved(ledger, *map(key, answered))
    ledger = Ledger(path, USERS, THREE_ROUNDS) if restarted else ledger
    said = rf"^server-round={asked} .* min-separation-rounds=3 .*; {too_near} is not$"
    assert_refused(path, ledger, MinSeparation, key(asked, request_hash="cd" * 32), said)


@pytest.mark.parametrize("rounds", [(1, 4, 7), (10, 7), (10, 4, 7), (1, 2**40)])
def test_rounds_as_far_apart_as_the_separation_are_answered(path, rounds):
    ledger = Ledger(path, USERS, THREE_ROUNDS)
    reserved(ledger, *map(key, rounds))
    assert ledger.releases()["f0001"].total() == len(rounds)


def test_rounds_of_another_experiment_are_no_separation(path):
    ledger = Ledger(path, USERS, THREE_ROUNDS)
    reserved(ledger, key(1), key(2, "another"), key(1, "a third"))
    assert_refused(path, ledger, MinSeparation, key(3, "another"), "server-round=3")


class Clock:
    """Shows what a test sets."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


TOO_SOON = "^min-separation-seconds=10 have not passed since the last answer"


@pytest.mark.parametrize("experiment_id", ["experiment", "another"])
@pytest.mark.parametrize("restarted", [False, True])
def test_answers_lie_apart_by_the_seconds_or_more(path, experiment_id, restarted):
    clock = Clock(0.0)  # the first answer waits for nothing, whatever the clock shows
    ledger = Ledger(path, USERS, TEN_SECONDS, clock)
    reserved(ledger, key(1))
    clock.now = 1000.0
    reserved(ledger, key(2))
    ledger = Ledger(path, USERS, TEN_SECONDS, clock) if restarted else ledger
    for now in (1000.0, math.nextafter(1010.0, 0)):
        clock.now = now
        assert_refused(path, ledger, MinSeparation, key(3, experiment_id), TOO_SOON)
    clock.now = 1010.0
    reserved(ledger, key(3, experiment_id))


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_went_back_is_waited_for(path, restarted):
    clock = Clock(1000.0)
    ledger = Ledger(path, USERS, TEN_SECONDS, clock)
    reserved(ledger, key(1))
    ledger = Ledger(path, USERS, TEN_SECONDS, clock) if restarted else ledger
    for now in (-1e9, 0.0, 985.0, 999.0, 1005.0):
        clock.now = now
        assert_refused(path, ledger, MinSeparation, key(2), TOO_SOON)
    clock.now = 1010.0
    reserved(ledger, key(2))


def test_the_last_answer_is_the_latest_by_the_clock_and_not_by_the_lines(path):
    reserved(Ledger(path, USERS, NO_LIMIT, Clock(1000.0)), key(1))
    reserved(Ledger(path, USERS, NO_LIMIT, Clock(500.0)), key(2))
    assert_refused(
        path, Ledger(path, USERS, TEN_SECONDS, Clock(900.0)), MinSeparation, key(3), TOO_SOON
    )


def test_without_a_separation_no_clock_and_no_round_matters(path):
    clock = Clock(1000.0)
    ledger = Ledger(path, USERS, NO_LIMIT, clock)
    for clock.now, server_round in [(1000.0, 2), (1000.0, 1), (-1000.0, 2)]:
        reserved(ledger, key(server_round))
    assert ledger.releases()["f0001"].total() == 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_request_whose_reply_is_lost_is_charged_once_where_the_policy_says_refuse(
    path, restarted
):
    policy = DevicePolicy(lost_replies="refuse")
    ledger = Ledger(path, USERS, policy)
    reserved(ledger, key(7))
    ledger = Ledger(path, USERS, policy) if restarted else ledger
    assert_refused(path, ledger, Replay, key(7), "^server-round=7 was .* lost-replies=refuse")
    # Any other request is a release of its own.
    reserved(ledger, key(8), key(7, "another"), key(7, request_hash="cd" * 32))
    assert_refused(path, ledger, Replay, key(7), "no second charge")
