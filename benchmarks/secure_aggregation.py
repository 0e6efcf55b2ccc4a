"""What secure aggregation costs a device in a round: seconds and bytes beside the payload.

One real device on one core, and as many made-up peers as the cohort has beside it: of them only
what the device receives is made, before the clock runs. Each phase is timed, with the writing of
the round's state to disk (SQLite, as a guard does) and the reading of it.

Usage: python -m benchmarks.secure_aggregation [--devices 100] [--numbers 4530]
"""

import argparse
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fed_gswgan.secure_aggregation.keys import Identity, agreed, public_of, seal
from fed_gswgan.secure_aggregation.protocol import (
    Device,
    Round,
    place_bytes,
    places_bytes,
    signed_list,
)
from fed_gswgan.secure_aggregation.secret_sharing import SHARE_BYTES
from fed_gswgan.secure_aggregation.terms import Roster, Terms, threshold_of

Made = TypeVar("Made")
MODULUS_BITS = 14


def main() -> None:
    """Print seconds and bytes of each phase of one device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--numbers", type=int, default=4530)
    options = parser.parse_args()
    count = options.devices
    identities = sorted(
        (Identity(_secret("identity", n)) for n in range(count)), key=lambda one: one.public
    )
    honest, colluding = int(0.65 * count), int(0.05 * count)
    roster = Roster(
        people={identity.public: str(n) for n, identity in enumerate(identities)},
        min_honest=honest,
        max_colluding=colluding,
    )
    terms = Terms(
        experiment_id="benchmark", server_round=1, request_hash="", size=options.numbers,
        modulus_bits=MODULUS_BITS, honest=honest, threshold=threshold_of(count, colluding),
        cohort=tuple(identity.public for identity in identities),
    )  # fmt: skip
    spent: list[tuple[str, float, int, int]] = []
    folder = tempfile.TemporaryDirectory()
    rounds = sqlite3.connect(Path(folder.name) / "rounds.db", isolation_level=None)
    rounds.execute("CREATE TABLE rounds (state TEXT)")

    def timed(phase: str, received: bytes, call: Callable[[], Made]) -> Made:
        started = time.perf_counter()
        made = call()
        state, sent = made if isinstance(made, tuple) else (made, b"")
        if isinstance(state, Round):
            rounds.execute("INSERT INTO rounds VALUES (?)", (state.to_json(),))
            (written,) = rounds.execute("SELECT state FROM rounds ORDER BY rowid DESC").fetchone()
            assert Round.from_json(written) == state
        seconds = time.perf_counter() - started
        spent.append((phase, seconds, len(received), len(sent)))
        return made

    device, everybody = Device(identities[0], roster), range(count)
    begun, keys = timed("keys", b"", lambda: device.keys(terms))
    message = keys + b"".join(_keys(terms, identities[n], n) for n in everybody[1:])
    sent, _ = timed("shares", message, lambda: device.shares(begun, message))
    sealed = b"".join(_sealed(sent.transcript, n, begun.sealing_secret) for n in everybody[1:])
    received = timed("opening", sealed, lambda: device.receive(sent, sealed))
    steps = np.zeros(options.numbers, np.int64)
    timed("masking", b"", lambda: device.masked(received, steps))
    survivors = places_bytes(everybody)
    signed, _ = timed("survivors", survivors, lambda: device.sign_survivors(received, survivors))
    content = signed_list(received.transcript, everybody)
    signatures = b"".join(place_bytes(n) + identities[n].sign(*content) for n in everybody)
    timed("unmasking", signatures, lambda: device.unmask(signed, signatures))

    print(f"{count} devices, {options.numbers} numbers of {MODULUS_BITS} bits")
    for phase, seconds, down, up in spent:
        print(f"{phase:10} {seconds:7.3f} s  {down / 1e3:8.1f} kB down  {up / 1e3:8.1f} kB up")
    total = sum(seconds for _, seconds, _, _ in spent)
    both_ways = sum(down + up for _, _, down, up in spent)
    rounds.close()
    folder.cleanup()
    print(f"{'all':10} {total:7.3f} s  {both_ways / 1e3:8.1f} kB beside the payload")


def _secret(what: str, number: int) -> bytes:
    return hashlib.sha256(f"{what} {number}".encode()).digest()


def _keys(terms: Terms, identity: Identity, place: int) -> bytes:
    keys = public_of(_secret("masking", place)) + public_of(_secret("sealing", place))
    signature = identity.sign(b"keys", terms.hash(), identity.public, keys)
    return identity.public + keys + signature


def _sealed(transcript: bytes, place: int, receiver: bytes) -> bytes:
    context = b"sealed", transcript, place_bytes(place), place_bytes(0)
    key = agreed(_secret("sealing", place), public_of(receiver), *context)
    return place_bytes(place) + seal(key, bytes(2 * SHARE_BYTES), *context)


if __name__ == "__main__":
    main()
