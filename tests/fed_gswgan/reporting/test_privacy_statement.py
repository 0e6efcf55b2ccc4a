import pytest

from fed_gswgan.accounting.calibrate import Remedies
from fed_gswgan.reporting.privacy_statement import privacy_statement


def statement(
    epsilon, *, delta=1e-5, users=1000, participations=24, seeded=False,
    affordable=3, affordable_with_message_clipping=16, noise_stddev=12.5, added=-3233.2,
    trust="local", amplified=None, why_not="", form="ideal", mu=1.0, relation="replace-one",
):  # fmt: skip
    found = Remedies(
        epsilon=10.0,
        participations=affordable,
        participations_message_clipping=affordable_with_message_clipping,
        noise_stddev=noise_stddev,
        honest=35,
    )
    privacy = {
        "epsilon_max": epsilon, "delta": delta, "trust_model": trust, "unit": "one person",
        "neighboring_relation": relation, "mu": mu, "participations_max": participations,
        "seeded_noise": seeded, "epsilon_amplified": amplified, "honest": 65,
        "epsilon_alone": 60.28, "secure_aggregation": form,
        "delta_of_finite_arithmetic_log10": added,
    }  # fmt: skip
    return "\n".join(privacy_statement(privacy, users, 100, why_not, found))


def test_the_first_sentence_says_epsilon_delta_relation_user_and_participations():
    first = statement(1234.5).splitlines()[0]
    for words in ("1234", "1e-05", "replace-one", "one person", "24 participations"):
        assert words in first


def test_epsilon_is_said_as_the_chance_of_the_best_guess():
    """Phi(mu / 2): 0.5532 at epsilon 1 and delta 1e-5, 0.6915 at mu = 1, by a table of Phi."""
    assert "which of two sets of images a user has is right in at most 55.4 %" in statement(
        1.0, mu=0.26805
    )
    assert "whether a user's images are there is right in at most 69.2 %" in statement(
        1.0, relation="zero-out"
    )
    assert "in at most 100 % of cases if both are as likely beforehand" in statement(1e5, mu=400.0)


def test_it_is_said_against_whom_epsilon_holds_and_what_must_be_believed():
    assert "against everybody, the server included" in statement(1.0)
    secure = statement(1.0, trust="secure-aggregation")
    assert "sees only the sum over the 100 clients of a round" in secure
    assert "at least 65 are honest and stay" in secure
    assert "each client's release by itself, epsilon would be 60.28." in secure
    assert "the simulation itself formed the sum (ideal form)." in secure
    masked = statement(1.0, trust="secure-aggregation", form="protocol")
    assert "clients masked their releases, so that a server that cheats sees no more." in masked
    assert "ideal" not in masked


@pytest.mark.parametrize(
    ("added", "said"), [(-3233.2, "10^-3233"), (-8.01, "10^-8"), (None, "nothing")]
)
def test_what_finite_arithmetic_adds_to_delta_is_said_and_rounded_up(added, said):
    assert f"finite arithmetic adds {said} to delta" in statement(3.0, added=added)


def test_an_epsilon_past_which_finite_arithmetic_leaves_nothing_is_said():
    assert "an epsilon this large is no guarantee" in statement(2e4, added=14815.0)
    assert "an epsilon this large is no guarantee" in statement(60.0, added=-4.0)  # delta is 1e-5
    assert "10^" not in statement(2e4, added=14815.0)


def test_under_central_trust_a_secret_selection_has_its_own_figure_or_a_reason():
    known = statement(9.0, trust="central", amplified=3.21)
    assert "While nobody else knows the run's seed and who was asked, epsilon = 3.21." in known
    none = statement(9.0, trust="central", why_not="the population changed")
    assert "A secret selection lowers epsilon no further: the population changed." in none


def test_a_small_epsilon_needs_no_remedies():
    assert len(statement(9.9).splitlines()) == 3
    assert len(statement(10.0).splitlines()) == 3


def test_a_large_epsilon_is_called_what_it_is():
    assert "protects nobody" in statement(10.1)
    assert "protects nobody" not in statement(9.9)


def test_seeded_noise_protects_nobody_however_small_the_epsilon():
    assert "came from a seed, so this run protects nobody" in statement(0.1, seeded=True)
    assert "seed" not in statement(0.1)


@pytest.mark.parametrize(("users", "warned"), [(99, False), (100, True), (101, True)])
def test_a_delta_that_is_large_for_so_many_users_is_said(users, warned):
    text = statement(1.0, delta=0.01, users=users)
    assert (f"delta should be well below 1/{users}" in text) == warned


@pytest.mark.parametrize(
    "remedy",
    [
        "fewer participations: at most 3 a user",
        "more users to share the rounds: 8 times as many",  # 24 / 3
        "clipping = message",
        "1.5 times as many users to share the rounds (16 participations a user)",  # 24 / 16
        "noise-stddev 12.5",
        "35 honest survivors",
    ],
)
def test_every_remedy_is_told_with_its_number(remedy):
    assert remedy in statement(1234.5)


def test_numbers_are_rounded_up_so_that_the_target_is_really_met():
    text = statement(1234.5, participations=20, noise_stddev=12.501)
    assert "6.67 times as many" in text  # 20 / 3 is 6.666...
    assert "noise-stddev 12.51" in text


@pytest.mark.parametrize("participations", [16, 10])
def test_where_message_clipping_alone_suffices_nothing_else_is_asked_for(participations):
    text = statement(1234.5, participations=participations)
    (line,) = (line for line in text.splitlines() if "clipping = message" in line)
    assert line.endswith("and nothing else")


def test_where_a_single_reply_costs_too_much_more_users_help_with_message_clipping_alone():
    text = statement(1234.5, affordable=0, affordable_with_message_clipping=6)
    assert "a single reply at this noise costs more" in text
    assert "more users to share the rounds:" not in text
    assert "4 times as many users to share the rounds (6 participations a user)" in text  # 24 / 6
    assert "inf" not in text


def test_where_even_a_clipped_message_costs_too_much_more_users_do_not_help():
    text = statement(1234.5, affordable=0, affordable_with_message_clipping=0)
    assert "users to share" not in text
    assert "clipping = message" not in text
    assert "noise-stddev 12.5" in text


def test_a_trusted_server_is_named_and_what_needs_none_is_not_offered():
    trusting = statement(1234.5, trust="central")
    assert "the server is trusted to add the noise" in trusting
    assert "Against the server itself epsilon is infinite" in trusting
    assert "noise-stddev" in trusting
    assert "secure aggregation" not in trusting
    assert "clipping = message" not in trusting
