"""Keys: each context has its own, and nothing is opened that was changed."""

import numpy as np
import pytest

from fed_gswgan.secure_aggregation.keys import (
    Identity,
    agreed,
    client_id_of,
    derived,
    digest,
    is_signed,
    mask,
    proven,
    public_of,
    seal,
    unseal,
)

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def test_both_sides_agree_on_a_key_of_each_context():
    key = agreed(ONE, public_of(TWO), b"pair", b"1")
    assert key == agreed(TWO, public_of(ONE), b"pair", b"1")
    others = {agreed(ONE, public_of(TWO), *c) for c in ((b"pair", b"2"), (b"pai", b"r1"), ())}
    assert len(others | {key, derived(ONE), derived(ONE, b"")}) == 6


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_a_point_of_low_order_is_refused(public):
    with pytest.raises(ValueError, match=r".*"):
        agreed(ONE, public, b"pair")


def test_signatures_hold_for_their_parts_alone():
    identity = Identity(ONE)
    signature = identity.sign(b"keys", b"content")
    assert is_signed(identity.public, signature, b"keys", b"content")
    assert not is_signed(identity.public, signature, b"key", b"scontent")
    assert not is_signed(Identity(TWO).public, signature, b"keys", b"content")
    assert not is_signed(identity.public, signature[:-1], b"keys", b"content")
    assert not is_signed(bytes(31), signature, b"keys", b"content")
    assert digest(b"a", b"b") != digest(b"ab")


def test_who_has_a_key_proves_it_to_one_challenge_and_is_named_by_it():
    one, two = Identity(ONE), Identity(TWO)
    assert proven(one.prove(b"drawn"), b"drawn") == one.public
    for proof in (
        one.prove(b"other"),
        two.public + one.prove(b"drawn")[32:],
        one.prove(b"drawn")[:-1],
        one.public + one.sign(b"keys", b"drawn"),  # signed for something else
        b"",
    ):
        with pytest.raises(ValueError, match="does not hold the key"):
            proven(proof, b"drawn")
    assert client_id_of(one.public) != client_id_of(two.public)
    assert len(bytes.fromhex(client_id_of(one.public))) == 16


def test_what_was_sealed_opens_under_its_key_and_context_alone():
    sealed = seal(ONE, b"shares", b"from", b"to")
    assert unseal(ONE, sealed, b"from", b"to") == b"shares"
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    for key, text, context in (
        (TWO, sealed, (b"from", b"to")),
        (ONE, sealed, (b"to", b"from")),
        (ONE, changed, (b"from", b"to")),
        (ONE, b"", (b"from", b"to")),
    ):
        with pytest.raises(ValueError, match="not from whom it claims"):
            unseal(key, text, *context)


@pytest.mark.parametrize("bits", [1, 11, 31])
def test_masks_are_even_below_the_modulus_and_follow_from_their_key(bits):
    drawn = mask(ONE, 20_000, bits)
    assert drawn.dtype == np.int64
    assert drawn.min() >= 0
    assert drawn.max() < 2**bits
    assert np.array_equal(drawn, mask(ONE, 20_000, bits))
    middle = (2**bits - 1) / 2
    assert abs(drawn.mean() - middle) < 5 * 2**bits / np.sqrt(12 * 20_000)
    other = mask(TWO, 20_000, bits)
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 5 / np.sqrt(20_000)
