"""The server's part: what is wrong drops its device and nobody else; and the test vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from fed_gswgan.secure_aggregation.aggregation import Aggregation, TooFewDevices
from fed_gswgan.secure_aggregation.keys import SIGNATURE_BYTES
from fed_gswgan.secure_aggregation.protocol import bytes_beside_payload
from fed_gswgan.secure_aggregation.secret_sharing import SHARE_BYTES

VECTORS = Path(__file__).parent / "vectors.json"
WRONG = {3: lambda blob: blob[:-1], 5: lambda blob: bytes([blob[0] ^ 1]) + blob[1:]}


def changed(replies):
    """Return the replies, those of places 3 and 5 damaged."""
    return {p: WRONG.get(p, lambda blob: blob)(reply) for p, reply in replies.items()}


def add(server, cohort, signatures):
    return [
        server.add_masked(p, cohort.masked[p], cohort.masked[p].tobytes(), signature)
        for p, signature in signatures.items()
    ]


@pytest.mark.parametrize("phase", ["keys", "shares", "masked", "signatures", "unmask"])
def test_a_damaged_message_drops_its_device_and_no_other(cohort, phase):
    def sent(name, replies):
        return changed(replies) if name == phase else replies

    server = cohort.aggregation()
    message = server.take_keys(sent("keys", cohort.keys()))
    present = sorted(set(range(12)) - set(server.dropped))
    sealed = server.take_shares(sent("shares", cohort.shares(message, present)))
    add(server, cohort, sent("masked", cohort.send_masked(sealed)))
    survivors = server.survivors()
    signing = sorted(set(sealed) - set(server.dropped))
    signatures = server.take_signatures(sent("signatures", cohort.sign(survivors, signing)))
    unmasking = sorted(set(sealed) - set(server.dropped))
    found = server.unmask(sent("unmask", cohort.unmask(signatures, unmasking)))
    assert server.dropped.keys() == WRONG.keys()
    late = phase in ("signatures", "unmask")  # their masked releases are in the sum already
    summed = range(12) if late else sorted(set(range(12)) - set(WRONG))
    assert np.array_equal(found, cohort.releases[list(summed)].sum(0) & (2**cohort.bits - 1))


def test_a_masked_release_counts_once_and_only_of_those_who_took_part(cohort):
    server = cohort.aggregation()
    message = server.take_keys(cohort.keys())
    sealed = server.take_shares(cohort.shares(message, range(11)))
    signatures = cohort.send_masked(sealed)
    assert add(server, cohort, signatures) == [True] * 11
    assert add(server, cohort, {0: signatures[0]}) == [False]
    cohort.masked[11] = cohort.masked[0]
    assert add(server, cohort, {11: signatures[0]}) == [False]
    assert len(server.survivors()) == 22


def test_keys_count_for_the_place_that_sent_them(cohort):
    server = cohort.aggregation()
    sent = cohort.keys()
    server.take_keys({**sent, 0: sent[1]})
    assert "from place 0" in server.dropped[0]


def test_too_few_devices_end_the_round(cohort):
    server = cohort.aggregation()
    with pytest.raises(TooFewDevices, match="keys of 7 devices, must be >= 8"):
        server.take_keys(cohort.keys(range(7)))


def test_shares_that_fit_no_secret_end_the_round(cohort):
    server = cohort.aggregation()
    message = server.take_keys(cohort.keys())
    sealed = server.take_shares(cohort.shares(message))
    add(server, cohort, {p: s for p, s in cohort.send_masked(sealed).items() if p != 2})
    survivors = server.survivors()
    present = [p for p in range(12) if p != 2]
    signatures = server.take_signatures(cohort.sign(survivors, present))
    revealed = cohort.unmask(signatures, present)
    for position, share, match in (
        (2, bytes(SHARE_BYTES), "place 2 are not of its masking secret"),
        (2, b"\xff" * SHARE_BYTES, "place 2: a share is no number below the prime"),
        (4, b"\xff" * SHARE_BYTES, "place 4: a share is no number below the prime"),
    ):
        wrong = bytearray(revealed[0][:-SIGNATURE_BYTES])
        wrong[position * SHARE_BYTES : (position + 1) * SHARE_BYTES] = share
        state, place = cohort.states[0], (0).to_bytes(2, "big")
        signature = cohort.identities[0].sign(b"unmask", state.transcript, place, bytes(wrong))
        with pytest.raises(TooFewDevices, match=match):
            server.unmask({**revealed, 0: bytes(wrong) + signature})
    assert np.array_equal(
        server.unmask(revealed), cohort.releases[present].sum(0) & (2**cohort.bits - 1)
    )


def test_bytes_beside_the_payload_are_those_of_the_messages(cohort):
    server = cohort.aggregation()
    sent, received = [], []

    def exchange(down, up):
        received.append(down)
        sent.append(up[0])

    keys = cohort.keys()
    message = server.take_keys(keys)
    exchange(b"", keys)
    shares = cohort.shares(message)
    sealed = server.take_shares(shares)
    exchange(message, shares)
    signatures = cohort.send_masked(sealed)
    add(server, cohort, signatures)
    exchange(sealed[0], signatures)
    survivors = server.survivors()
    signed = cohort.sign(survivors, range(12))
    exchange(survivors, signed)
    together = server.take_signatures(signed)
    exchange(together, cohort.unmask(together, range(12)))
    assert sum(map(len, sent + received)) == bytes_beside_payload(12)
    assert bytes_beside_payload(100) < 80_000
    assert bytes_beside_payload(1000) < 500_000


def vectors(cohort) -> dict:
    """Return every message of a seeded round of four devices, of which the last drops out."""
    server = Aggregation(cohort.terms, cohort.honest + cohort.colluding)
    keys = cohort.keys()
    message = server.take_keys(keys)
    shares = cohort.shares(message)
    sealed = server.take_shares(shares)
    signatures = cohort.send_masked(sealed)
    add(server, cohort, {p: signatures[p] for p in (0, 1, 2)})
    survivors = server.survivors()
    signed = cohort.sign(survivors, (0, 1, 2))
    together = server.take_signatures(signed)
    revealed = cohort.unmask(together, (0, 1, 2))
    of_bytes = {
        "cohort": dict(enumerate(cohort.terms.cohort)), "keys": keys, "shares": shares,
        "sealed": sealed, "signatures-of-masked": signatures, "survivors": {0: survivors},
        "signatures-of-survivors": signed, "revealed": revealed,
    }  # fmt: skip
    return {
        "terms": {n: v for n, v in vars(cohort.terms).items() if n != "cohort"},
        **{name: {str(p): of[p].hex() for p in of} for name, of in of_bytes.items()},
        "releases": cohort.releases.tolist(),
        "masked": {str(p): masked.tolist() for p, masked in cohort.masked.items()},
        "sum": server.unmask(revealed).tolist(),
    }


def test_vectors(cohort):
    """Seeds are those of conftest: SHAKE-256 of ``identity N`` or ``device PLACE``, and a count."""
    small = type(cohort)(size=4, honest=2, colluding=1, threshold=3, numbers=5, bits=12)
    found = vectors(small)
    assert found == json.loads(VECTORS.read_text())
    assert found["sum"] == (small.releases[:3].sum(0) & 0xFFF).tolist()
