"""Shares of a secret: any t give it, fewer fit every secret."""

import itertools
import random
import secrets

import pytest

from fed_gswgan.secure_aggregation.secret_sharing import (
    PRIME,
    SHARE_BYTES,
    combine,
    is_share,
    split,
    weights_at_zero,
)

SECRET = bytes(range(224, 256))


def test_any_t_shares_give_the_secret():
    points = [1, 2, 5, 9, 1174]
    shares = dict(zip(points, split(SECRET, points, 3, secrets.token_bytes), strict=True))
    for chosen in itertools.combinations(points, 3):
        assert combine(shares, weights_at_zero(chosen)) == SECRET
    assert combine(shares, weights_at_zero(points)) == SECRET
    assert all(map(is_share, shares.values()))


def test_fewer_shares_fit_every_secret():
    """For each other secret there is one polynomial with the very same two shares."""
    shares = dict(zip([1, 2, 3], split(SECRET, [1, 2, 3], 3, secrets.token_bytes), strict=True))
    for other in (bytes(32), b"\xff" * 32):
        wanted = int.from_bytes(other, "big")
        weights = weights_at_zero([1, 2, 3])
        known = sum(int.from_bytes(shares[p], "big") * weights[p] for p in (1, 2))
        third = (wanted - known) * pow(weights[3], -1, PRIME) % PRIME
        fits = {**shares, 3: third.to_bytes(SHARE_BYTES, "big")}
        assert combine(fits, weights) == other


def test_the_prime_is_one():
    """Miller and Rabin's test, with forty bases."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    drawn = random.Random(0)
    for _ in range(40):
        value = pow(drawn.randrange(2, PRIME - 1), odd, PRIME)
        squares = {pow(value, 2**power, PRIME) for power in range(twos)}
        assert value == 1 or PRIME - 1 in squares


def test_what_is_no_share_or_no_secret_is_refused():
    assert not is_share(PRIME.to_bytes(SHARE_BYTES, "big"))
    assert not is_share(bytes(32))
    points = [1, 2]
    for secret, threshold in ((SECRET, 3), (SECRET, 0), (SECRET[1:], 1)):
        with pytest.raises(ValueError, match="threshold="):
            split(secret, points, threshold, secrets.token_bytes)
    wrong = {1: (PRIME - 1).to_bytes(SHARE_BYTES, "big")}
    with pytest.raises(ValueError, match="not of one secret"):
        combine(wrong, weights_at_zero([1]))
