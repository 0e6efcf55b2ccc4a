import math

import pytest

from fed_gswgan.privacy.calibration import Remedies
from fed_gswgan.reporting.privacy_statement import privacy_statement


def statement(epsilon, **changes):
    found = Remedies(**{
        "epsilon": 10.0,
        "participations": 3,
        "participations_message_clipping": 96,
        "noise_stddev": 12.5,
        "population_factor": 8.0,
        "honest": 35,
    } | changes)  # fmt: skip
    lines = privacy_statement(epsilon, 1e-5, "replace-one", "one person", 24, found)
    return "\n".join(lines)


def test_the_first_sentence_says_epsilon_delta_relation_user_and_participations():
    first = statement(1234.5).splitlines()[0]
    for words in ("1234", "1e-05", "replace-one", "one person", "not trusted", "24 participations"):
        assert words in first


def test_a_small_epsilon_needs_no_remedies():
    assert len(statement(9.9).splitlines()) == 1


def test_a_large_epsilon_is_called_what_it_is():
    assert "protects nobody" in statement(10.1)
    assert "protects nobody" not in statement(9.9)


@pytest.mark.parametrize(
    "remedy",
    [
        "at most 3 participations",
        "96 with clipping = message",
        "noise-stddev 12.5",
        "8 times as many",
        "35 honest survivors",
    ],
)
def test_every_remedy_is_told_with_its_number(remedy):
    assert remedy in statement(1234.5)


def test_where_a_single_reply_costs_too_much_more_users_help_with_message_clipping_alone():
    found = {"participations": 0, "population_factor": math.inf}
    text = statement(1234.5, **found, participations_message_clipping=6)
    assert "a reply alone costs more" in text
    assert "4 times as many, with clipping = message" in text  # 24 / 6
    assert "inf" not in text


def test_where_even_a_clipped_message_costs_too_much_more_users_do_not_help():
    found = {"participations": 0, "population_factor": math.inf}
    assert "more users" not in statement(1234.5, **found, participations_message_clipping=0)
