import math

import numpy as np
import pytest

from fed_gswgan.privacy.events import (
    SanitizedGradientEvent,
    largest_reply_norm,
    largest_row_norm,
    noise_norm,
)
from fed_gswgan.privacy.noise_source import SeededNoise
from fed_gswgan.privacy.sanitizer import sanitize


def event(clipping="sample", samples=8, noise=2.14):
    return SanitizedGradientEvent(
        samples=samples, clipping=clipping, clipping_bound=0.5, noise_stddev=noise
    )


@pytest.mark.parametrize("clipping", ["sample", "message"])
def test_honest_replies_are_within_the_bounds_and_not_far_below(clipping):
    asked, randomness = event(clipping), np.random.default_rng(0)
    raw = randomness.normal(size=(8, 1, 28, 28)).astype(np.float32) * 1e6  # clipped to the bound
    rows, replies = [], []
    for _ in range(200):
        values = sanitize(raw, asked, SeededNoise(randomness)).values_BCHW.reshape(8, -1)
        rows.append(np.linalg.norm(values, axis=1).max())
        replies.append(np.linalg.norm(values))
    assert max(rows) < largest_row_norm(asked, 784) < 1.3 * max(rows)
    assert max(replies) < largest_reply_norm(asked, 784) < 1.15 * max(replies)


def test_the_bound_on_noise_is_the_lemmas():
    t = math.log(1e6)
    assert noise_norm(784, 1e6) == pytest.approx(math.sqrt(784 + 2 * math.sqrt(784 * t) + 2 * t))


def test_the_lemma_holds_where_its_odds_can_be_seen():
    norms = np.linalg.norm(np.random.default_rng(1).normal(size=(200_000, 3)), axis=1)
    assert (norms > noise_norm(3, 1e3)).mean() <= 1e-3


def test_without_noise_only_the_clipping_is_left():
    quiet = event(noise=2e-9)
    assert largest_row_norm(quiet, 784) == pytest.approx(0.5, rel=1e-6)
    assert largest_reply_norm(quiet, 784) == pytest.approx(0.5 * math.sqrt(8), rel=1e-6)
    assert largest_reply_norm(event("message", noise=2e-9), 784) == pytest.approx(0.5, rel=1e-6)
