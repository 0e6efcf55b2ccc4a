"""The device's part in one sum: five messages, each sent once, after its state is on disk.

1. **keys**: two fresh public keys, for masks and for sealing, signed with the device's identity.
2. **shares**: of the secret behind its masks and of its own mask's seed, one for each peer, sealed.
3. **masked**: its release plus its own mask and one with each peer that sealed shares for it, which
   cancel in the sum. The shares that it received are opened and checked before.
4. **survivors**: its signature of the list of those whose masked releases the server has.
5. **unmask**: given enough signatures of one list, the share of the own seed of each survivor, and
   of the masking secret of each peer that is missing from it; never both of one peer.

What a server can open is then a sum over at least H honest devices, whatever it sends: a device
answers one cohort, one set of peers and one list of survivors in a round, and each mask's key
depends on all that went before.

Every step takes what the device remembers and returns what it must remember before the message
leaves. Devices stand in a cohort at places, 0 and on, in the order of their public keys.

Source: Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS
2017, with its consistency check for servers that cheat. What differs: keys of masks depend on the
whole transcript, and shares are opened before anything is masked.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum

import numpy as np

from fed_gswgan.privacy.refusals import UnsafeAggregation
from fed_gswgan.secure_aggregation.keys import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Identity,
    agreed,
    derived,
    digest,
    is_signed,
    mask,
    public_of,
    seal,
    unseal,
)
from fed_gswgan.secure_aggregation.secret_sharing import SHARE_BYTES, is_share, split
from fed_gswgan.secure_aggregation.terms import Roster, Terms

KEYS_BYTES = 3 * KEY_BYTES + SIGNATURE_BYTES
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES
PLACE_BYTES = 2


class Phase(IntEnum):
    """The last message that a device has sent in a round."""

    KEYS = 1
    SHARES = 2
    MASKED = 3
    SURVIVORS = 4
    UNMASKED = 5


@dataclass(frozen=True)
class Round:
    """What a device remembers of a round, from its first message on.

    Attributes:
        phase: the last message that was sent.
        terms: of the sum.
        place: its own, in the cohort.
        masking_secret: behind its masks with peers.
        sealing_secret: behind what is sealed for it.
        seed: of its own mask.
        masking_keys: of the peers that sent keys, by place, its own included.
        sealing_keys: likewise.
        transcript: hash of all that has been agreed on.
        shares: of the peers that sealed some for it, by place, its own included: the seed's, then
            the masking secret's.
        pair_keys: of the masks that it has in common with each of them.
        survivors: places in the list that it signed.
    """

    phase: Phase
    terms: Terms
    place: int
    masking_secret: bytes = field(repr=False)
    sealing_secret: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    masking_keys: Mapping[int, bytes] = field(default_factory=dict)
    sealing_keys: Mapping[int, bytes] = field(default_factory=dict)
    transcript: bytes = b""
    shares: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    pair_keys: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    survivors: tuple[int, ...] = ()

    def to_json(self) -> str:
        """Return all of it as JSON, bytes in hexadecimal; it holds secrets."""
        return json.dumps(asdict(self), default=bytes.hex)

    @classmethod
    def from_json(cls, text: str) -> "Round":
        """Return what ``to_json`` wrote."""
        found = json.loads(text)
        terms = found["terms"]
        terms["cohort"] = tuple(map(bytes.fromhex, terms["cohort"]))
        for name in ("masking_secret", "sealing_secret", "seed", "transcript"):
            found[name] = bytes.fromhex(found[name])
        for name in ("masking_keys", "sealing_keys", "shares", "pair_keys"):
            found[name] = {int(p): bytes.fromhex(value) for p, value in found[name].items()}
        return cls(
            **{
                **found,
                "phase": Phase(found["phase"]),
                "terms": Terms(**terms),
                "survivors": tuple(found["survivors"]),
            }
        )


class Device:
    """Answers each phase of a round.

    Args:
        identity: the device's key.
        roster: its owner's.
        random: returns so many secret random bytes.
    """

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._identity, self._roster, self._random = identity, roster, random

    def keys(self, terms: Terms) -> tuple[Round, bytes]:
        """Agree to terms, and return fresh public keys; the caller knows no round of that number.

        Raises:
            UnsafeAggregation: the terms break the roster's rules; and so in every later phase.
        """
        own = self._identity.public
        self._roster.admit(terms, own)
        begun = Round(
            Phase.KEYS,
            terms,
            terms.cohort.index(own),
            masking_secret=self._random(KEY_BYTES),
            sealing_secret=self._random(KEY_BYTES),
            seed=self._random(KEY_BYTES),
        )
        keys = public_of(begun.masking_secret) + public_of(begun.sealing_secret)
        signature = self._identity.sign(b"keys", terms.hash(), own, keys)
        return begun, own + keys + signature

    def shares(self, begun: Round, messages: bytes) -> tuple[Round, bytes]:
        """Check the keys of all peers, and seal a pair of shares for each.

        Args:
            begun: after ``keys``.
            messages: the ``keys`` of all who sent some, joined in the order of places.
        """
        terms = begun.terms
        _require_phase(begun, Phase.KEYS)
        masking, sealing = read_keys(terms, messages)
        mine = public_of(begun.masking_secret), public_of(begun.sealing_secret)
        if (masking.get(begun.place), sealing.get(begun.place)) != mine:
            raise UnsafeAggregation("keys must hold the ones that this device sent")
        self._roster.require_enough(terms, list(masking), "keys")
        transcript = after_keys(terms, messages)
        points = [place + 1 for place in masking]
        pairs = zip(
            split(begun.seed, points, terms.threshold, self._random),
            split(begun.masking_secret, points, terms.threshold, self._random),
            strict=True,
        )
        own, sealed = b"", []
        for place, (of_seed, of_secret) in zip(masking, pairs, strict=True):
            if place == begun.place:
                own = of_seed + of_secret
                continue
            context = _sealed_for(transcript, begun.place, place)
            key = _agreed(begun.sealing_secret, sealing[place], *context)
            sealed.append(place_bytes(place) + seal(key, of_seed + of_secret, *context))
        message = b"".join(sealed)
        signature = self._identity.sign(b"shares", transcript, place_bytes(begun.place), message)
        sent = replace(
            begun,
            phase=Phase.SHARES,
            masking_keys=masking,
            sealing_keys=sealing,
            transcript=transcript,
            shares={begun.place: own},
        )
        return sent, message + signature

    def receive(self, sent: Round, sealed: bytes) -> Round:
        """Open and check the shares of all peers: before it, no release may be computed.

        Args:
            sent: after ``shares``.
            sealed: of each peer that sent shares, its place and what it sealed for this device, one
                after the other, in the order of places.
        """
        _require_phase(sent, Phase.SHARES)
        shares = dict(sent.shares)
        for sender, text in read_by_place(sealed, SEALED_BYTES, sent.masking_keys).items():
            if sender == sent.place:
                raise UnsafeAggregation("shares must be those of peers")
            context = _sealed_for(sent.transcript, sender, sent.place)
            key = _agreed(sent.sealing_secret, sent.sealing_keys[sender], *context)
            try:
                pair = unseal(key, text, *context)
            except ValueError as error:
                raise UnsafeAggregation(f"shares: {error}") from error
            if not (is_share(pair[:SHARE_BYTES]) and is_share(pair[SHARE_BYTES:])):
                raise UnsafeAggregation("shares must be two numbers below the prime")
            shares[sender] = pair
        self._roster.require_enough(sent.terms, list(shares), "shares")
        transcript = after_shares(sent.transcript, shares)
        pair_keys = {
            peer: pair_key(
                sent.masking_secret, sent.masking_keys[peer], transcript, sent.place, peer
            )
            for peer in shares
            if peer != sent.place
        }
        return replace(
            sent, phase=Phase.MASKED, transcript=transcript, shares=shares, pair_keys=pair_keys
        )

    def masked(self, received: Round, steps: np.ndarray) -> np.ndarray:
        """Return a release under its masks, int64 (size,), modulo 2^modulus_bits.

        Args:
            received: of ``receive``, and on disk.
            steps: grid steps of the noised release, int64 (size,).
        """
        terms = received.terms
        total = steps + mask(
            own_mask_key(received.seed, received.transcript), terms.size, terms.modulus_bits
        )
        for peer, key in received.pair_keys.items():
            drawn = mask(key, terms.size, terms.modulus_bits)
            total += drawn if received.place < peer else -drawn
        return np.asarray(total & (2**terms.modulus_bits - 1))

    def sign_masked(self, received: Round, payload: bytes) -> bytes:
        """Return the signature of a masked release as it is sent."""
        place = place_bytes(received.place)
        return self._identity.sign(b"masked", received.transcript, place, payload)

    def sign_survivors(self, received: Round, survivors: bytes) -> tuple[Round, bytes]:
        """Sign the list of those whose masked releases the server has; one list a round.

        Args:
            received: after the masked release.
            survivors: places, in ascending order, of two bytes each.
        """
        _require_phase(received, Phase.MASKED)
        places = read_places(survivors, received.shares)
        if received.place not in places:
            raise UnsafeAggregation("survivors must hold the device that is asked")
        self._roster.require_enough(received.terms, places, "survivors")
        signed = replace(received, phase=Phase.SURVIVORS, survivors=places)
        return signed, self._identity.sign(*signed_list(received.transcript, places))

    def unmask(self, signed: Round, signatures: bytes) -> tuple[Round, bytes]:
        """Return one share of each peer, once enough survivors have signed the same list.

        Args:
            signed: after ``sign_survivors``.
            signatures: of survivors, each its place and signature, in the order of places.
        """
        _require_phase(signed, Phase.SURVIVORS)
        found = read_by_place(signatures, SIGNATURE_BYTES, dict.fromkeys(signed.survivors, b""))
        content = signed_list(signed.transcript, signed.survivors)
        for place, signature in found.items():
            if not is_signed(signed.terms.cohort[place], signature, *content):
                raise UnsafeAggregation("signatures must be of the list that this device signed")
        if len(found) < signed.terms.threshold:
            raise UnsafeAggregation(
                f"signatures of {len(found)} devices must be >= threshold={signed.terms.threshold}"
            )
        revealed = b"".join(
            pair[:SHARE_BYTES] if place in signed.survivors else pair[SHARE_BYTES:]
            for place, pair in sorted(signed.shares.items())
        )
        own = place_bytes(signed.place)
        signature = self._identity.sign(b"unmask", signed.transcript, own, revealed)
        return replace(signed, phase=Phase.UNMASKED), revealed + signature


def bytes_beside_payload(devices: int) -> int:
    """Return what the messages of a round add to a device's masked release, both ways, in bytes.

    It receives the keys of all, a pair of shares of each peer, the list of survivors and all their
    signatures; it sends its keys, the shares, two signatures and a share of each. None drops out.
    """
    down = devices * (KEYS_BYTES + PLACE_BYTES + PLACE_BYTES + SIGNATURE_BYTES)
    shares = (devices - 1) * (PLACE_BYTES + SEALED_BYTES)
    up = KEYS_BYTES + devices * SHARE_BYTES + 4 * SIGNATURE_BYTES
    return down + 2 * shares + up


def read_keys(terms: Terms, messages: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return masking and sealing keys by place, of signed messages in the order of places.

    Raises:
        UnsafeAggregation: a message is cut, of a stranger, not signed, or out of order.
    """
    masking, sealing, last, hashed = {}, {}, -1, terms.hash()
    places = {key: place for place, key in enumerate(terms.cohort)}
    if len(messages) % KEYS_BYTES:
        raise UnsafeAggregation(f"keys must be {KEYS_BYTES} bytes of each device")
    for start in range(0, len(messages), KEYS_BYTES):
        message = messages[start : start + KEYS_BYTES]
        own, keys = message[:KEY_BYTES], message[KEY_BYTES : 3 * KEY_BYTES]
        place = places.get(own, -1)
        if place <= last:
            raise UnsafeAggregation("keys must be of devices of the cohort, each once, in order")
        if not is_signed(own, message[3 * KEY_BYTES :], b"keys", hashed, own, keys):
            raise UnsafeAggregation("keys must be signed by their device, for these terms")
        masking[place], sealing[place] = keys[:KEY_BYTES], keys[KEY_BYTES:]
        last = place
    return masking, sealing


def after_keys(terms: Terms, messages: bytes) -> bytes:
    """Return the transcript once the keys of all peers, in the order of places, are known."""
    return digest(b"keys", terms.hash(), messages)


def after_shares(transcript: bytes, peers: Iterable[int]) -> bytes:
    """Return the transcript once it is known who sealed shares, oneself included."""
    return digest(b"peers", transcript, places_bytes(sorted(peers)))


def pair_key(secret: bytes, public: bytes, transcript: bytes, one: int, two: int) -> bytes:
    """Return the key of the mask that two places have in common, from the secret of either."""
    return _agreed(secret, public, b"pair", transcript, places_bytes(sorted((one, two))))


def own_mask_key(seed: bytes, transcript: bytes) -> bytes:
    """Return the key of a device's own mask."""
    return derived(seed, b"own", transcript)


def signed_list(transcript: bytes, survivors: Sequence[int]) -> tuple[bytes, ...]:
    """Return what a survivor signs."""
    return b"survivors", transcript, places_bytes(survivors)


def place_bytes(place: int) -> bytes:
    """Return a place on the wire."""
    return place.to_bytes(PLACE_BYTES, "big")


def places_bytes(places: Sequence[int]) -> bytes:
    """Return places on the wire, one after the other."""
    return b"".join(map(place_bytes, places))


def read_places(blob: bytes, known: Mapping[int, bytes]) -> tuple[int, ...]:
    """Return places in ascending order, all of them known.

    Raises:
        UnsafeAggregation: they are cut, out of order or unknown.
    """
    return tuple(read_by_place(blob, 0, known))


def read_by_place(blob: bytes, size: int, known: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return contents of ``size`` bytes by place, in ascending order, all of known places.

    Raises:
        UnsafeAggregation: they are cut, out of order or of an unknown place.
    """
    whole, found, last = PLACE_BYTES + size, {}, -1
    if len(blob) % whole:
        raise UnsafeAggregation(f"a message of {len(blob)} bytes must have {whole} of each place")
    for start in range(0, len(blob), whole):
        place = int.from_bytes(blob[start : start + PLACE_BYTES], "big")
        if place <= last or place not in known:
            raise UnsafeAggregation("places must be of devices that took part, in ascending order")
        found[place] = blob[start + PLACE_BYTES : start + whole]
        last = place
    return found


def _require_phase(state: Round, phase: Phase) -> None:
    if state.phase != phase:
        raise UnsafeAggregation(
            f"the device has sent its {state.phase.name.lower()} in this round; a message is sent "
            "once, and after the one before it"
        )


def _sealed_for(transcript: bytes, sender: int, receiver: int) -> tuple[bytes, ...]:
    return b"sealed", transcript, place_bytes(sender), place_bytes(receiver)


def _agreed(secret: bytes, public: bytes, *context: bytes) -> bytes:
    try:
        return agreed(secret, public, *context)
    except ValueError as error:
        raise UnsafeAggregation(f"a key of a peer cannot be agreed on: {error}") from error
