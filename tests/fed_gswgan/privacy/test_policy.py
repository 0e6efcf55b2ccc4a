"""An owner's limits: what they allow, what they refuse, and what is charged for a release."""

import math
from dataclasses import replace

import pytest

from fed_gswgan.privacy.gaussian import gaussian_epsilon
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.policy import Budget, Policy, read_policy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    RequestExceedsPolicy,
    TooManyParticipations,
)

EVENT = Event(rows=32, numbers=784, clipping_bound=1.0, noise_stddev=2.14)
SHARES = replace(EVENT, trust="secure-aggregation", noise_stddev=1.07, honest=4)
CENTRAL = replace(EVENT, trust="central", noise_stddev=9e8)
# mu = 2 / 8 = 0.25 a release under replace-one: n of them have 0.25 sqrt(n).
QUARTER = Event(rows=1, numbers=1, clipping_bound=1.0, noise_stddev=8.0)
ALL_TRUST = ("local", "secure-aggregation", "central")


def epsilon_after(releases, multiple=2):
    return gaussian_epsilon(multiple / 8 * math.sqrt(releases), 1e-5)


SHARE = replace(QUARTER, trust="secure-aggregation", noise_stddev=4.0, honest=4)


def test_what_releases_would_tell_by_themselves_is_bounded_too():
    """A share of QUARTER's noise among four: mu is 0.25 in a sum, and 0.5 alone."""
    alone = gaussian_epsilon(0.5 * math.sqrt(3), 1e-5)
    policy = Policy(
        trust=("secure-aggregation",), min_noise_stddev=8.0, max_epsilon=epsilon_after(9),
        max_epsilon_alone=alone * (1 + 1e-9),
    )  # fmt: skip
    policy.admit_spending({SHARE: 2}, SHARE)
    with pytest.raises(BudgetExhausted, match=r"max-epsilon-alone=.* would be passed") as found:
        policy.admit_spending({SHARE: 3}, SHARE)
    assert found.value.limit == f"max-epsilon-alone={policy.max_epsilon_alone:g}"
    with pytest.raises(BudgetExhausted, match="max-epsilon-alone"):
        policy.admit_spending({SHARE: 2, QUARTER: 2}, SHARE)  # of all trust models together
    Policy(max_epsilon=1e6).admit_spending({SHARE: 10**4}, SHARE)  # no limit


@pytest.mark.parametrize("missing", ["min-honest", "max-colluding", "max-epsilon-alone"])
def test_who_admits_sums_says_whom_to_believe(tmp_path, missing):
    limits = {"min-honest": "5", "max-colluding": "1", "max-epsilon-alone": "80.0"}
    limits |= {"max-epsilon": "1.0", "trust": '["secure-aggregation"]'}

    def read(table):
        (tmp_path / "p.toml").write_text("\n".join(f"{k} = {v}" for k, v in table.items()))
        return read_policy(tmp_path / "p.toml")

    assert read(limits).max_epsilon_alone == 80.0
    with pytest.raises(ValueError, match=f"p.toml: {missing} must be given where trust has"):
        read({name: value for name, value in limits.items() if name != missing})
    with pytest.raises(ValueError, match="max-epsilon-alone must be finite"):
        read({**limits, "max-epsilon-alone": "inf"})


class TestCharge:
    def test_what_is_within_the_limits_is_charged_as_it_is(self):
        for less in (
            {}, {"rows": 1}, {"numbers": 1}, {"clipping_bound": 1e-6}, {"noise_stddev": 1e6},
            {"bounded": "message"}, {"bounded": "message", "rows": 9000}, {"extra": 5},
        ):  # fmt: skip
            event = replace(EVENT, **less)
            assert Policy().charge(event) == event
        assert Policy(clipping="message").charge(replace(EVENT, bounded="message"))

    @pytest.mark.parametrize(
        ("event", "said"),
        [
            (replace(EVENT, rows=33), "rows=33 must be <= max-rows=32"),
            (replace(EVENT, clipping_bound=1.01), "clipping-bound=1.01 must be <= max-clipping-b"),
            (replace(EVENT, noise_stddev=2.13), "noise-stddev=2.13 must be >= min-noise-stddev=2"),
            # The noise is relative to the bound: a smaller bound buys no smaller noise.
            (replace(EVENT, noise_stddev=0.214, clipping_bound=0.1), "noise-stddev=0.214 must"),
            (SHARES, "trust=secure-aggregation must be one of local"),
            (CENTRAL, "trust=central must be one of local"),
        ],
    )
    def test_more_is_refused_with_field_value_and_limit(self, event, said):
        with pytest.raises(RequestExceedsPolicy, match=said) as found:
            Policy().charge(event)
        assert found.value.limit == str(found.value)
        with pytest.raises(RequestExceedsPolicy, match="clipping=sample must be message"):
            Policy(clipping="message").charge(EVENT)

    def test_least_noise_bounds_the_sum_of_the_honest_shares(self):
        policy = Policy(trust=("secure-aggregation",))
        assert policy.charge(SHARES) == SHARES  # 1.07 sqrt(4) = 2.14
        for fields in ({"noise_stddev": 1.06}, {"honest": 3}):
            with pytest.raises(RequestExceedsPolicy, match=r"min-noise-stddev=2\.14"):
                policy.charge(replace(SHARES, **fields))
        assert policy.charge(replace(SHARES, honest=10_000, noise_stddev=0.0214))
        with pytest.raises(RequestExceedsPolicy, match="honest=4 must be >= min-honest=5"):
            Policy(trust=("secure-aggregation",), min_honest=5).charge(SHARES)

    def test_a_trusted_server_is_charged_the_owners_noise(self):
        policy = Policy(trust=("central",), central_noise_stddev=50.0)
        for promised in (9e8, 1e-3):
            event = replace(CENTRAL, noise_stddev=promised)
            assert policy.charge(event) == replace(CENTRAL, noise_stddev=50.0)
        with pytest.raises(RequestExceedsPolicy, match="needs the owner's central-noise"):
            Policy(trust=ALL_TRUST).charge(CENTRAL)

    def test_eight_raw_updates_promised_much_noise_cost_the_owners_epsilon(self):
        """The server says 9e8, the owner believes 8: epsilon is that of eight at 8."""
        event = replace(QUARTER, trust="central", noise_stddev=9e8)
        policy = Policy(
            max_epsilon=epsilon_after(8) * (1 + 1e-9), trust=("central",), central_noise_stddev=8.0
        )
        charged = policy.charge(event)
        policy.admit_spending({charged: 7}, charged)
        with pytest.raises(BudgetExhausted):
            policy.admit_spending({charged: 8}, charged)


class TestBudget:
    @pytest.mark.parametrize("kind", [Budget, Policy])
    @pytest.mark.parametrize(("relation", "multiple"), [("replace-one", 2), ("zero-out", 1)])
    def test_the_release_that_passes_the_epsilon_is_refused(self, kind, relation, multiple):
        exact = epsilon_after(5, multiple)
        budget = kind(neighboring_relation=relation, max_epsilon=exact * (1 + 1e-9))
        budget.admit_spending({QUARTER: 4}, QUARTER)
        with pytest.raises(BudgetExhausted, match="would be passed") as found:
            budget.admit_spending({QUARTER: 5}, QUARTER)
        assert found.value.limit == f"max-epsilon={exact:g}"  # not what was spent

    def test_releases_of_all_kinds_count(self):
        loud = replace(QUARTER, noise_stddev=16.0, rows=4)  # another of mu = 0.25
        budget = Budget(max_epsilon=epsilon_after(5) * (1 + 1e-9), max_participations=8)
        budget.admit_spending({QUARTER: 2, loud: 2}, loud)
        with pytest.raises(BudgetExhausted):
            budget.admit_spending({QUARTER: 2, loud: 3}, loud)
        with pytest.raises(TooManyParticipations, match="max-participations=8 is reached"):
            budget.admit_spending({QUARTER: 3, loud: 5}, loud)
        Budget().admit_spending({replace(EVENT, noise_stddev=1e-8): 10**6}, loud)  # no limits

    def test_an_owner_who_says_nothing_has_finite_limits(self):
        policy = Policy()
        assert policy.trust == ("local",)
        assert policy.central_noise_stddev == 0  # central trust is refused
        assert 0 < policy.max_epsilon <= 10
        assert 0 < policy.max_participations < math.inf
        with pytest.raises(BudgetExhausted):
            policy.admit_spending({EVENT: 100}, EVENT)

    def test_every_limit_is_in_the_hash(self):
        other = {
            "neighboring_relation": "zero-out", "delta": 1e-6, "max_epsilon": 9.0,
            "max_participations": 9, "trust": ALL_TRUST, "max_rows": 31, "clipping": "message",
            "max_clipping_bound": 0.5, "min_noise_stddev": 3.0, "central_noise_stddev": 1.0,
            "min_honest": 3, "min_separation_rounds": 1, "min_separation_seconds": 1.0,
            "lost_replies": "refuse", "max_colluding": 1, "max_epsilon_alone": 99.0,
            "answer_seconds": 2.0, "counter": "/bin/counter",
        }  # fmt: skip
        assert other.keys() == Policy.model_fields.keys()
        hashes = {Policy(**{name: value}).hash() for name, value in other.items()}
        assert len(hashes | {Policy().hash()}) == len(other) + 1
        assert Policy(max_epsilon=10.0).hash() == Policy().hash()


class TestFile:
    def test_a_file_sets_what_it_names(self, tmp_path):
        path = tmp_path / "policy.toml"
        path.write_text('max-epsilon = 3.5\ntrust = ["local", "central"]\nmin-honest = 7\n')
        with pytest.raises(FileNotFoundError):
            read_policy(tmp_path / "other.toml")
        found = read_policy(path)
        assert found == Policy(max_epsilon=3.5, trust=("local", "central"), min_honest=7)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("max-epsilom = 3.0", "max-epsilom: no such setting; did you mean max-epsilon?"),
            ("max_epsilon = 3.0", "did you mean max-epsilon?"),
            ("min-noise = 2.0", "did you mean min-noise-stddev?"),
            ("qqq = 1", "qqq: no such setting; known: neighboring-relation"),
            ("max-rows = 8", "max-epsilon must be given, and finite"),
            ("max-epsilon = inf", "max-epsilon must be given, and finite"),
            ("max-epsilon = nan", "max-epsilon"), ("max-epsilon : 3.0", ""),
            ("max-epsilon = 0.0", "max-epsilon=0.0 must be greater than 0"),
            ("max-epsilon = '3'", "max-epsilon='3' must be a valid number"),
            ("max-rows = true", "max-rows=True must be a valid integer"),
            ("min-honest = 0", "min-honest=0 must be greater"), ("delta = 1.0", "delta=1.0 must"),
            ("min-noise-stddev = nan", "min-noise-stddev"),
            ("central-noise-stddev = inf", "central-noise-stddev=inf must"),
            ("trust = []", "must name trust models"), ("trust = ['paper']", "trust.0='paper' must"),
            ("trust = ['local', 'local']", "must name trust models once each"),
            ("counter = 'count'", "counter='count' must be the absolute path of a program"),
            ("lost-replies = 'free'", "lost-replies='free' must be 'charge'"),
        ],
    )  # fmt: skip
    def test_a_mistake_in_a_file_is_named(self, tmp_path, text, said):
        path = tmp_path / "policy.toml"
        path.write_text(text.replace("'", '"'))
        with pytest.raises(ValueError) as found:
            read_policy(path)
        assert said in str(found.value)
        if said:
            assert str(found.value).startswith("policy.toml: ")
