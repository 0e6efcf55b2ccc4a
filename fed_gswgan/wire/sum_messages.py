"""Messages of secure aggregation to a device, as bytes, free of any transport.

Each names its phase and round; the first one carries the request and the cohort.
"""

import struct
from dataclasses import dataclass

from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.secure_aggregation.keys import KEY_BYTES
from fed_gswgan.secure_aggregation.protocol import Phase
from fed_gswgan.secure_aggregation.terms import LARGEST_COHORT, Terms
from fed_gswgan.wire.messages import (
    LARGEST_REQUEST_BYTES,
    LARGEST_ROUND,
    LONGEST_ID,
    Request,
    named_by_request,
)

MAGIC = b"gswgan-\xff"  # no request begins so: its first 8 bytes are a length below 2^56
_HEADER = struct.Struct(">BQB")  # phase, round, length of the experiment's id
_COHORT = struct.Struct(">HH")  # threshold, devices


def is_sum_message(blob: bytes) -> bool:
    """Tell whether bytes are a message of secure aggregation, and no plain request."""
    return blob[: len(MAGIC)] == MAGIC


@dataclass(frozen=True)
class SumMessage:
    """What a server asks of a device in one phase.

    Attributes:
        phase: whose message the device is to send.
        experiment_id: of the run, at most 64 printable characters.
        server_round: from 1.
        body: an encoded ``Announcement`` for the keys, else what the peers have sent.
    """

    phase: Phase
    experiment_id: str
    server_round: int
    body: bytes

    def encode(self) -> bytes:
        """Return the message as bytes."""
        word = self.experiment_id.encode("ascii")
        header = _HEADER.pack(self.phase, self.server_round, len(word))
        return MAGIC + header + word + self.body

    @classmethod
    def decode(cls, blob: bytes) -> "SumMessage":
        """Validate and return a message.

        Raises:
            MalformedInput: it breaks the schema.
        """
        try:
            if type(blob) is not bytes or len(blob) > LARGEST_REQUEST_BYTES:
                raise ValueError(f"must be bytes, at most {LARGEST_REQUEST_BYTES}")
            if not is_sum_message(blob):
                raise ValueError("it must begin as one")
            phase, server_round, length = _HEADER.unpack_from(blob, len(MAGIC))
            start = len(MAGIC) + _HEADER.size
            word = blob[start : start + length].decode("ascii")
            if len(word) != length or length > LONGEST_ID or not word.isprintable():
                raise ValueError(f"experiment-id must be at most {LONGEST_ID} printable characters")
            if not 1 <= server_round <= LARGEST_ROUND:
                raise ValueError(f"server-round={server_round} must be in 1 .. {LARGEST_ROUND}")
            return cls(Phase(phase), word, server_round, blob[start + length :])
        except (struct.error, ValueError) as error:
            raise MalformedInput(f"not a message of secure aggregation: {error}") from error


def named_by(blob: bytes) -> tuple[str, int]:
    """Return experiment and round that a request or a message of secure aggregation names.

    As ``named_by_request``.
    """
    if not is_sum_message(blob):
        return named_by_request(blob)
    try:
        message = SumMessage.decode(blob)
    except MalformedInput:
        return "", 0
    return message.experiment_id, message.server_round


@dataclass(frozen=True)
class Announcement:
    """Body of the first message of a round.

    Attributes:
        threshold: t of the terms.
        cohort: public keys of all devices asked, in ascending order.
        request: an encoded ``Request``.
    """

    threshold: int
    cohort: tuple[bytes, ...]
    request: bytes

    def encode(self) -> bytes:
        """Return the body as bytes."""
        return _COHORT.pack(self.threshold, len(self.cohort)) + b"".join(self.cohort) + self.request

    @classmethod
    def decode(cls, body: bytes) -> "Announcement":
        """Return what was announced.

        Raises:
            MalformedInput: it is cut.
        """
        try:
            threshold, devices = _COHORT.unpack_from(body)
        except struct.error as error:
            raise MalformedInput(f"not an announcement: {error}") from error
        end = _COHORT.size + devices * KEY_BYTES
        if len(body) < end or devices >= LARGEST_COHORT:
            raise MalformedInput(f"an announcement of {devices} devices is cut")
        starts = range(_COHORT.size, end, KEY_BYTES)
        return cls(threshold, tuple(body[n : n + KEY_BYTES] for n in starts), body[end:])

    def terms(self, request: Request) -> Terms:
        """Return the terms that a device agrees to, of the decoded request."""
        return Terms(
            experiment_id=request.experiment_id,
            server_round=request.server_round,
            request_hash=request.hash(),
            size=request.event.size,
            modulus_bits=request.modulus_bits,
            honest=request.event.honest,
            threshold=self.threshold,
            cohort=self.cohort,
        )
