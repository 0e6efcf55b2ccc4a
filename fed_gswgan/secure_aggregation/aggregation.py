"""The server's part in one sum: what it sends in each phase, and how the masks come off.

It keeps the messages that are well formed and signed; a device whose message is missing or wrong
has dropped out, and what it did wrong stands in ``dropped``. Places are those of the cohort.

``taking_part`` are the places that the next phase asks.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fed_gswgan.privacy.refusals import UnsafeAggregation
from fed_gswgan.secure_aggregation.keys import SIGNATURE_BYTES, is_signed, mask, public_of
from fed_gswgan.secure_aggregation.protocol import (
    KEYS_BYTES,
    SEALED_BYTES,
    after_keys,
    after_shares,
    own_mask_key,
    pair_key,
    place_bytes,
    places_bytes,
    read_by_place,
    read_keys,
    signed_list,
)
from fed_gswgan.secure_aggregation.secret_sharing import (
    SHARE_BYTES,
    combine,
    is_share,
    weights_at_zero,
)
from fed_gswgan.secure_aggregation.terms import Terms


class TooFewDevices(RuntimeError):
    """So many devices dropped out that no sum can be formed; the round is over."""


class Aggregation:
    """One round, phase by phase.

    Args:
        terms: of the sum.
        enough: the fewest devices in each phase, at least the threshold; devices want H and those
            that may collude.
    """

    def __init__(self, terms: Terms, enough: int) -> None:
        self.terms, self._enough = terms, max(enough, terms.threshold)
        self.dropped: dict[int, str] = {}
        self.taking_part: tuple[int, ...] = tuple(range(len(terms.cohort)))
        self._masking: dict[int, bytes] = {}
        self._transcript = b""
        self._peers: tuple[int, ...] = ()
        self._survivors: tuple[int, ...] = ()
        self._sum = np.zeros(terms.size, np.int64)

    def take_keys(self, replies: Mapping[int, bytes]) -> bytes:
        """Keep the keys of each device, and return what all of them are sent."""
        kept: dict[int, bytes] = {}
        for place, reply in sorted(replies.items()):
            try:
                if len(reply) != KEYS_BYTES:
                    raise UnsafeAggregation(f"keys of {len(reply)} bytes must be {KEYS_BYTES}")
                masking, _ = read_keys(self.terms, reply)
                if list(masking) != [place]:
                    raise UnsafeAggregation(f"keys of place {list(masking)} from place {place}")
            except UnsafeAggregation as error:
                self.dropped[place] = str(error)
            else:
                self._masking |= masking
                kept[place] = reply
        self._require_enough(kept, "keys")
        self.taking_part = tuple(kept)
        message = b"".join(kept.values())
        self._transcript = after_keys(self.terms, message)
        return message

    def take_shares(self, replies: Mapping[int, bytes]) -> dict[int, bytes]:
        """Keep what each device sealed for its peers, and return what each is sent."""
        sealed: dict[int, dict[int, bytes]] = {}
        for place, reply in sorted(replies.items()):
            message = self._signed(place, reply, b"shares")
            if message is None:
                continue
            others = {peer: b"" for peer in self._masking if peer != place}
            try:
                found = read_by_place(message, SEALED_BYTES, others)
                if found.keys() != others.keys():
                    raise UnsafeAggregation("shares must be for every peer")
            except UnsafeAggregation as error:
                self.dropped[place] = str(error)
            else:
                sealed[place] = found
        self._require_enough(sealed, "shares")
        self.taking_part = self._peers = tuple(sealed)
        self._transcript = after_shares(self._transcript, self._peers)
        return {
            receiver: b"".join(
                place_bytes(sender) + of_sender[receiver]
                for sender, of_sender in sealed.items()
                if sender != receiver
            )
            for receiver in self._peers
        }

    def add_masked(self, place: int, steps: np.ndarray, payload: bytes, signature: bytes) -> bool:
        """Add a masked release, and tell whether it counts.

        Args:
            place: of the device.
            steps: the payload as whole numbers, int64 (size,).
            payload: as it was sent.
            signature: of it.
        """
        if place in self._survivors or self._signed(place, payload + signature, b"masked") is None:
            return False
        self._sum += steps
        self._survivors += (place,)
        return True

    def survivors(self) -> bytes:
        """Return the list of those whose masked releases are in the sum."""
        self.taking_part = self._survivors = tuple(sorted(self._survivors))
        self._require_enough(self._survivors, "masked releases")
        return places_bytes(self._survivors)

    def take_signatures(self, replies: Mapping[int, bytes]) -> bytes:
        """Return the signatures of the list, which all survivors are sent."""
        content = signed_list(self._transcript, self._survivors)
        found = {
            place: reply
            for place, reply in sorted(replies.items())
            if place in self._survivors and is_signed(self.terms.cohort[place], reply, *content)
        }
        self.dropped |= {place: "no signature" for place in replies.keys() - found.keys()}
        self._require_enough(found, "signatures")
        self.taking_part = tuple(found)
        return b"".join(place_bytes(place) + reply for place, reply in found.items())

    def unmask(self, replies: Mapping[int, bytes]) -> np.ndarray:
        """Return the sum of the survivors' releases, int64 (size,), modulo 2^modulus_bits.

        Raises:
            TooFewDevices: fewer than t devices revealed their shares, or these fit no secret.
        """
        revealed: dict[int, bytes] = {}
        for place, reply in sorted(replies.items()):
            message = self._signed(place, reply, b"unmask") if place in self._survivors else None
            if message is not None and len(message) == SHARE_BYTES * len(self._peers):
                revealed[place] = message
        self._require_enough(revealed, "revealed shares")
        holders = list(revealed)[: self.terms.threshold]
        weights = weights_at_zero([holder + 1 for holder in holders])
        secrets = {}
        for position, peer in enumerate(self._peers):
            start = position * SHARE_BYTES
            shares = {h + 1: revealed[h][start : start + SHARE_BYTES] for h in holders}
            try:
                if not all(map(is_share, shares.values())):
                    raise ValueError("a share is no number below the prime")
                secrets[peer] = combine(shares, weights)
            except ValueError as error:
                raise TooFewDevices(f"the shares of place {peer}: {error}") from error
        return self._without_masks(secrets)

    def _without_masks(self, secrets: Mapping[int, bytes]) -> np.ndarray:
        terms, total = self.terms, self._sum
        for peer, secret in secrets.items():
            if peer in self._survivors:
                keys = {own_mask_key(secret, self._transcript): -1}
            elif public_of(secret) != self._masking[peer]:
                raise TooFewDevices(f"the shares of place {peer} are not of its masking secret")
            else:
                keys = {
                    pair_key(secret, self._masking[other], self._transcript, peer, other): (
                        -1 if other < peer else 1
                    )
                    for other in self._survivors
                }
            for key, sign in keys.items():
                total = total + sign * mask(key, terms.size, terms.modulus_bits)
        return np.asarray(total & (2**terms.modulus_bits - 1))

    def _signed(self, place: int, reply: bytes, what: bytes) -> bytes | None:
        """Return a message without its signature; None, and a note, if that does not hold."""
        message, signature = reply[:-SIGNATURE_BYTES], reply[-SIGNATURE_BYTES:]
        known = self._masking if what == b"shares" else self._peers
        if place in known and is_signed(
            self.terms.cohort[place], signature, what, self._transcript, place_bytes(place), message
        ):
            return message
        self.dropped[place] = f"{what.decode()}: not signed by a device that took part so far"
        return None

    def _require_enough(self, found: Sequence[int] | Mapping[int, object], what: str) -> None:
        if len(found) < self._enough:
            raise TooFewDevices(f"{what} of {len(found)} devices, must be >= {self._enough}")
