"""What the devices of a cohort agree on before a sum, and whom each of them believes in."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fed_gswgan.privacy.refusals import UnsafeAggregation
from fed_gswgan.secure_aggregation.keys import digest

LARGEST_COHORT = 2**16


def threshold_of(devices: int, colluding: int) -> int:
    """Return t, the fewest that two sets of which have an honest device in common: > (n + c) / 2.

    Args:
        devices: n.
        colluding: c, devices that may help the server.
    """
    return (devices + colluding) // 2 + 1


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every device of a cohort must agree on before it takes part.

    Attributes:
        experiment_id: of the run.
        server_round: from 1; a device takes part once in a round, ever.
        request_hash: SHA-256 of the request, which says what a release is and how it is noised.
        size: numbers of a release.
        modulus_bits: of each number of a sum.
        honest: H, releases of honest devices that every sum must hold.
        threshold: t, how many devices must agree before a mask can be removed.
        cohort: public keys of all devices asked, in ascending order.
    """

    experiment_id: str
    server_round: int
    request_hash: str
    size: int
    modulus_bits: int
    honest: int
    threshold: int
    cohort: tuple[bytes, ...]

    def hash(self) -> bytes:
        """Return the SHA-256 of everything in them."""
        fixed = {key: value for key, value in vars(self).items() if key != "cohort"}
        return digest(json.dumps(fixed, sort_keys=True).encode(), *self.cohort)


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Whom a device's owner believes in.

    Attributes:
        people: public key of each peer, its own included, and whose device it is. Devices of one
            person count once.
        min_honest: the smallest H.
        max_colluding: c, so many people may help the server.
    """

    people: Mapping[bytes, str]
    min_honest: int
    max_colluding: int

    def admit(self, terms: Terms, own: bytes) -> None:
        """Refuse terms under which the server could open more than a sum of H.

        Raises:
            UnsafeAggregation: naming what they break.
        """
        cohort = terms.cohort
        if list(cohort) != sorted(set(cohort)) or len(cohort) >= LARGEST_COHORT:
            raise UnsafeAggregation("cohort must name each device once, in the order of their keys")
        if own not in cohort:
            raise UnsafeAggregation("cohort must hold the device that is asked")
        if strangers := [key for key in cohort if key not in self.people]:
            raise UnsafeAggregation(
                f"cohort must hold devices of the roster alone: {len(strangers)} are not"
            )
        if terms.honest < self.min_honest:
            limit = f"min-honest={self.min_honest}"
            raise UnsafeAggregation(f"honest={terms.honest} must be >= {limit}", limit)
        devices = Counter(self.people[key] for key in cohort)
        colluding = sum(count for _, count in devices.most_common(self.max_colluding))
        if not len(cohort) + colluding < 2 * terms.threshold <= 2 * len(cohort):
            raise UnsafeAggregation(
                f"threshold={terms.threshold} must be more than half of {len(cohort)} devices and "
                f"{colluding} colluding ones, and at most {len(cohort)}"
            )
        self.require_enough(terms, range(len(cohort)), "cohort")

    def require_enough(self, terms: Terms, places: Sequence[int], what: str) -> None:
        """Refuse a part of the cohort that leaves fewer than H honest, or t in all.

        Raises:
            UnsafeAggregation: naming both numbers.
        """
        people = len({self.people[terms.cohort[place]] for place in places})
        needed = terms.honest + self.max_colluding
        if people < needed or len(places) < terms.threshold:
            raise UnsafeAggregation(
                f"{what} of {len(places)} devices of {people} people must be >= {needed} people "
                f"(honest={terms.honest}, max-colluding={self.max_colluding}) and >= "
                f"threshold={terms.threshold}"
            )
