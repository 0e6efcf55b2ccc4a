"""Shamir's secret sharing of 32 bytes: any t shares give the secret, t - 1 say nothing about it.

A share is the value of a random polynomial of degree t - 1, whose value at 0 is the secret, at the
share's point.

Source: Shamir, How to share a secret, CACM 1979.
"""

from collections.abc import Callable, Mapping, Sequence

PRIME = 2**256 + 297  # the first above all secrets
SECRET_BYTES, SHARE_BYTES = 32, 33


def split(
    secret: bytes, points: Sequence[int], threshold: int, random: Callable[[int], bytes]
) -> list[bytes]:
    """Return a share for each point.

    Args:
        secret: 32 bytes.
        points: different whole numbers from 1 on.
        threshold: t, so many shares give the secret.
        random: returns so many secret random bytes.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(points):
        raise ValueError(
            f"threshold={threshold} must be in 1 .. {len(points)}, secret of {len(secret)} bytes 32"
        )
    # 16 bytes more than the prime has: as good as uniform.
    drawn = [int.from_bytes(random(SHARE_BYTES + 15), "big") % PRIME for _ in range(threshold - 1)]
    coefficients = [*drawn, int.from_bytes(secret, "big")]
    return [_value(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points]


def _value(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in coefficients:
        value = (value * point + coefficient) % PRIME
    return value


def is_share(share: bytes) -> bool:
    """Tell whether the bytes are those of a value below the prime."""
    return len(share) == SHARE_BYTES and int.from_bytes(share, "big") < PRIME


def weights_at_zero(points: Sequence[int]) -> dict[int, int]:
    """Return what each point's share counts for in the secret: Lagrange's polynomials at 0."""
    weights = {}
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights[point] = above * pow(below, -1, PRIME) % PRIME
    return weights


def combine(shares: Mapping[int, bytes], weights: Mapping[int, int]) -> bytes:
    """Return the secret of t shares or more, by point.

    Args:
        shares: at every point of the weights.
        weights: of ``weights_at_zero``, which many secrets may have in common.

    Raises:
        ValueError: no secret has these shares.
    """
    value = sum(int.from_bytes(shares[point], "big") * w for point, w in weights.items()) % PRIME
    if value >= 2 ** (8 * SECRET_BYTES):
        raise ValueError("the shares are not of one secret of 32 bytes")
    return value.to_bytes(SECRET_BYTES, "big")
