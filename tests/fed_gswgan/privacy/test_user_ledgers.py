import pytest

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.refusals import LedgerUnavailable
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.privacy_config import BudgetConfig

# mu = 2 / 8 = 0.25 under replace-one: three releases spend 0.43, four 0.5.
EVENT = SanitizedGradientEvent(samples=1, clipping="sample", clipping_bound=1.0, noise_stddev=8.0)
BUDGET = BudgetConfig(delta=1e-5, max_epsilon=gaussian_epsilon(0.47, 1e-5))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "asked.jsonl"
    UserLedgers.create(path)
    return path


def test_nobody_asked_means_nothing_spent(path):
    ledgers = UserLedgers(path, BUDGET)
    assert ledgers.max_mu() == ledgers.max_epsilon() == 0.0
    assert ledgers.max_participations() == 0
    assert not ledgers.would_exceed("a", EVENT)


def test_epsilon_and_participations_are_those_of_whoever_was_asked_most(path):
    ledgers = UserLedgers(path, BUDGET)
    ledgers.record(1, ["a", "b"], EVENT)
    ledgers.record(2, ["b", "c"], EVENT)
    ledgers.record(3, ["b"], EVENT)
    ledgers.record(4, ["b"], EVENT)
    assert ledgers.max_participations() == 4
    assert ledgers.max_mu() == pytest.approx(0.5)
    assert ledgers.max_epsilon() == pytest.approx(gaussian_epsilon(0.5, 1e-5))


def test_count_is_on_disk_when_record_returns_and_there_again_when_reopened(path):
    first = UserLedgers(path, BUDGET)
    first.record(1, ["a", "b"], EVENT)
    with LedgerFile(path).locked() as file:
        assert [(e["round"], e["clients"]) for e in file.entries] == [(1, ["a", "b"])]
    first.record(2, ["a"], EVENT)
    again = UserLedgers(path, BUDGET)
    assert again.max_participations() == first.max_participations() == 2
    assert again.max_epsilon() == first.max_epsilon()


def test_would_exceed_from_the_first_release_that_does_not_fit(path):
    ledgers = UserLedgers(path, BUDGET)
    for server_round in (1, 2, 3):
        assert not ledgers.would_exceed("a", EVENT)
        ledgers.record(server_round, ["a"], EVENT)
    assert ledgers.would_exceed("a", EVENT)
    assert not ledgers.would_exceed("b", EVENT)
    assert UserLedgers(path, BUDGET).would_exceed("a", EVENT)


def test_asking_whether_it_would_exceed_charges_nothing(path):
    ledgers = UserLedgers(path, BUDGET)
    for _ in range(10):
        ledgers.would_exceed("a", EVENT)
    assert ledgers.max_participations() == 0


def test_round_asked_again_counts_again(path):
    ledgers = UserLedgers(path, BUDGET)
    ledgers.record(1, ["a"], EVENT)
    ledgers.record(1, ["a"], EVENT)
    assert ledgers.max_participations() == 2
    assert UserLedgers(path, BUDGET).max_participations() == 2


def test_unwritable_ledger_counts_nobody(path):
    ledgers = UserLedgers(path, BUDGET)
    path.unlink()
    with pytest.raises(LedgerUnavailable):
        ledgers.record(1, ["a"], EVENT)
    assert ledgers.max_participations() == 0


def test_torn_last_line_is_dropped_and_the_rest_counts(path):
    ledgers = UserLedgers(path, BUDGET)
    ledgers.record(1, ["a"], EVENT)
    whole, head = path.read_bytes(), path.with_suffix(".head").read_bytes()
    ledgers.record(2, ["a"], EVENT)
    longer = path.read_bytes()
    for cut in range(len(whole) + 1, len(longer) - 1, 20):
        path.write_bytes(longer[:cut])
        path.with_suffix(".head").write_bytes(head)  # the crash came before it was moved on
        again = UserLedgers(path, BUDGET)
        assert again.max_participations() == 1
        assert path.read_bytes() == whole
        again.record(2, ["a"], EVENT)
        assert UserLedgers(path, BUDGET).max_participations() == 2


def test_a_count_that_was_cut_is_unavailable(path):
    ledgers = UserLedgers(path, BUDGET)
    ledgers.record(1, ["a"], EVENT)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(LedgerUnavailable, match="cut"):
        UserLedgers(path, BUDGET)


def test_participations_beyond_the_limit_are_not_asked_for(path):
    ledgers = UserLedgers(path, BudgetConfig(max_participations=2))
    for server_round in (1, 2):
        assert not ledgers.would_exceed("a", EVENT)
        ledgers.record(server_round, ["a"], EVENT)
    assert ledgers.would_exceed("a", EVENT)
    assert not ledgers.would_exceed("b", EVENT)


def test_missing_count_is_unavailable_and_not_started_anew(path):
    path.unlink()
    with pytest.raises(LedgerUnavailable):
        UserLedgers(path, BUDGET)
    assert not path.exists()


def test_count_is_created_once(path):
    UserLedgers(path, BUDGET).record(1, ["a"], EVENT)
    with pytest.raises(FileExistsError):
        UserLedgers.create(path)
    assert UserLedgers(path, BUDGET).max_participations() == 1


def test_damaged_ledger_is_not_replaced_by_a_new_one(path):
    UserLedgers(path, BUDGET).record(1, ["a"], EVENT)
    path.write_bytes(path.read_bytes().replace(b'"round": 1', b'"round": 2'))
    with pytest.raises(LedgerUnavailable):
        UserLedgers(path, BUDGET)


def test_the_most_that_was_spent_is_known_however_the_events_differ(path):
    loud = SanitizedGradientEvent(
        samples=4, clipping="sample", clipping_bound=1.0, noise_stddev=8.0
    )
    ledgers = UserLedgers(path, BUDGET)
    ledgers.record(1, ["a", "b"], EVENT)
    ledgers.record(2, ["a"], EVENT)
    ledgers.record(3, ["b"], loud)  # mu 0.5, beside b's 0.25
    assert ledgers.max_mu() == pytest.approx((0.5**2 + 0.25**2) ** 0.5)
    assert ledgers.max_participations() == 2
    again = UserLedgers(path, BUDGET)
    assert (again.max_mu(), again.max_participations()) == (ledgers.max_mu(), 2)
