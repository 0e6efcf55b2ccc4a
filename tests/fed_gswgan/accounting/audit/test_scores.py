import numpy as np
import pytest

from fed_gswgan.accounting.audit_cases import projection, unreachable_by_single_precision
from fed_gswgan.privacy.events import SanitizedGradientEvent


def event(clipping="sample", samples=2, noise_stddev=2.14):
    return SanitizedGradientEvent(
        samples=samples, clipping=clipping, clipping_bound=1.0, noise_stddev=noise_stddev
    )


def rows(*values):
    return np.array(values, np.float32).reshape(len(values), 1, 1, 2)


def test_score_lies_along_the_difference_of_what_is_clipped():
    # Clipped: (0.6, 0.8), (0, 0) against (0, 0), (0, 0).
    score = projection([rows([3, 4], [np.nan, 1])], [rows([0, 0], [0, 0])], event())
    assert score([rows([1, 0], [9, 9])]) == pytest.approx(0.6)
    assert score([rows([0, 1], [9, 9])]) == pytest.approx(0.8)


def test_whole_reply_is_clipped_as_one_under_message_clipping():
    # (3, 0), (0, 4) is 5 long: (0.6, 0), (0, 0.8) is left.
    score = projection([rows([3, 0], [0, 4])], [rows([0, 0], [0, 0])], event("message"))
    assert score([rows([1, 0], [0, 0])]) == pytest.approx(0.6)
    assert score([rows([0, 0], [0, 1])]) == pytest.approx(0.8)


def test_messages_are_scored_together():
    score = projection(
        [rows([1, 0]), rows([-1, 0])], [rows([-1, 0]), rows([1, 0])], event(samples=1)
    )
    same_noise = rows([7, 7])
    assert score([same_noise, same_noise]) == pytest.approx(0)
    assert score([rows([1, 0]), rows([0, 0])]) == pytest.approx(0.5**0.5)


def test_a_value_that_single_precision_noise_skips_is_counted():
    normals = np.random.Generator(np.random.Philox(key=5)).standard_normal(20_000, np.float32)
    noise = (np.float32(2.14) * normals).reshape(10_000, 1, 1, 2)
    score = unreachable_by_single_precision(event(samples=10_000))
    assert score([noise]) == 0
    # 6 to 7 in a hundred numbers lie in a gap.
    assert 1000 < score([noise + np.float32(0.3)]) < 1600
