"""Request and release as bytes, free of any transport; each is validated once, when decoded.

A request is one safetensors file: its tensors, and its header as JSON in a tensor of bytes. A
release is grid steps alone. A refusal is a code and the limit of the policy that decided.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fed_gswgan.privacy.mechanism import Event, grid_step, noise_deviation
from fed_gswgan.privacy.refusals import MalformedInput, Refusal, refusal_named
from fed_gswgan.wire.encoding import (
    BITS,
    COARSE_BITS,
    FLOAT16_MAX,
    Levels,
    dequantise,
    pack_words,
    packed_bytes,
    quantise,
    unpack_words,
)

VERSION = 2  # of the encoding; 1 was Flower records
LARGEST_ROUND = 2**40
LARGEST_REQUEST_BYTES = 2**28
LARGEST_HEADER_BYTES = 2**16  # of what is read of a request that may not be looked at
MOST_TENSORS = 64
LARGEST_REFUSAL_BYTES = 2**12
LONGEST_LIMIT = 200  # characters; escaped, they fit in a refusal
LONGEST_ID = 64  # of an experiment
Word = Annotated[str, Field(max_length=LONGEST_ID, pattern=r"^[ -~]*$")]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")]
Scalar = Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Word
DTYPES = {"float32": np.float32, "float16": np.float16, "int64": np.int64}
RELEASED, REFUSED = b"\x00", b"\x01"


class MalformedReplyError(ValueError):
    """A reply that breaks the schema; it is counted and dropped."""


def _one_of_bits(bits: int) -> int:
    if bits not in BITS:
        raise ValueError(f"must be one of {', '.join(map(str, BITS))}")
    return bits


# A Literal would accept ``true`` for 1 and 8.0 for 8.
Bits = Annotated[int, AfterValidator(_one_of_bits)]


class _Written(BaseModel):
    """How one tensor is written."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    shape: list[Annotated[int, Field(ge=0, le=2**28)]]
    bits: Bits = 32  # of a tensor in [0, 1]


class _Header(BaseModel):
    """Everything in a request that is no tensor."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    experiment_id: Word
    server_round: Annotated[int, Field(ge=1, le=LARGEST_ROUND)]
    oldest_round: Annotated[int, Field(ge=1, le=LARGEST_ROUND)]
    algorithm: Word
    event: Event
    uplink_bits: Bits
    modulus_bits: Annotated[int, Field(ge=0, le=31)]
    scalars: dict[Name, Scalar]
    tensors: dict[Name, _Written]


@dataclass(frozen=True)
class ReleaseKey:
    """What makes a release the same release when it is asked for again.

    Attributes:
        experiment_id: a resumed run keeps it.
        server_round: from 1.
        request_hash: of everything that decides the release.
    """

    experiment_id: str
    server_round: int
    request_hash: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the server asks of the clients of a cohort in one round.

    Attributes:
        experiment_id: at most 64 printable characters; a resumed run keeps it.
        server_round: from 1.
        oldest_round: the oldest round that the server may ask for again: the one after its last
            checkpoint. Clients keep their replies and states from there on.
        algorithm: its name.
        event: the release that is asked for, with its cost.
        tensors: float32, float16 or int64, by name.
        scalars: finite numbers, or at most 64 printable characters, by name.
        uplink_bits: of each number of the release.
        modulus_bits: under secure aggregation releases are sent modulo 2^modulus_bits; else 0.
        unit_range: names of the float32 tensors in [0, 1], which ``downlink_bits`` applies to.
        downlink_bits: of each number of those tensors; the server alone reads it.
    """

    experiment_id: str
    server_round: int
    oldest_round: int = 1
    algorithm: str
    event: Event
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    scalars: Mapping[str, int | float | str] = field(default_factory=dict)
    uplink_bits: int = 32
    modulus_bits: int = 0
    unit_range: frozenset[str] = frozenset()
    downlink_bits: int = 32

    def encode(self) -> bytes:
        """Return the request as bytes."""
        written, data = {}, {}
        for name, tensor in self.tensors.items():
            bits = self.downlink_bits if name in self.unit_range else 32
            data[name] = np.asarray(quantise(tensor, bits) if bits < 32 else tensor, order="C")
            written[name] = {"shape": list(tensor.shape), "bits": bits}
        header = {
            "version": VERSION,
            "experiment_id": self.experiment_id,
            "server_round": self.server_round,
            "oldest_round": self.oldest_round,
            "algorithm": self.algorithm,
            "event": asdict(self.event),
            "uplink_bits": self.uplink_bits,
            "modulus_bits": self.modulus_bits,
            "scalars": dict(self.scalars),
            "tensors": written,
        }
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        return save({"header": text, **{f"tensor/{name}": t for name, t in data.items()}})

    @classmethod
    def decode(cls, blob: bytes, largest_bytes: int = LARGEST_REQUEST_BYTES) -> "Request":
        """Validate and return a request; the only place that reads what a server sends.

        Raises:
            MalformedInput: it breaks the schema; names the field and the rule.
        """
        if type(blob) is not bytes or len(blob) > largest_bytes:
            raise MalformedInput(f"a request must be bytes, at most {largest_bytes}")
        try:
            found = load(blob)
            header = _Header.model_validate_json(found.pop("header").tobytes())
            if len(found) > MOST_TENSORS or found.keys() != {f"tensor/{n}" for n in header.tensors}:
                raise ValueError("tensors must be those that the header names, at most 64")
            tensors = {n: _tensor(n, found[f"tensor/{n}"], w) for n, w in header.tensors.items()}
            if header.oldest_round > header.server_round:
                raise ValueError(f"oldest-round must be <= server-round={header.server_round}")
            if (header.modulus_bits > 0) != (header.event.trust == "secure-aggregation"):
                raise ValueError("modulus-bits must be given under secure-aggregation, and only so")
            request = cls(
                tensors=tensors,
                **{n: v for n, v in header if n not in ("version", "tensors")},
            )
            release_bytes(request)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part).replace("_", "-") for part in first["loc"])
            raise MalformedInput(f"{place or 'header'}: {first['msg']}") from error
        except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise MalformedInput(f"not a request: {error}") from error
        return request

    @cached_property
    def key(self) -> ReleaseKey:
        """What makes the release that is asked for the same as another."""
        return ReleaseKey(self.experiment_id, self.server_round, self.hash())

    def hash(self) -> str:
        """Return the SHA-256 of all that decides the release: not of bits, nor of oldest_round."""
        scalars = sorted(self.scalars.items())
        fixed = [self.experiment_id, self.server_round, self.algorithm, asdict(self.event), scalars]
        digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode())
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()


def named_by_request(blob: bytes) -> tuple[str, int]:
    """Return experiment and round that a request names, at a cost that no tensor adds to.

    It may name any, and nothing else of it is validated. What is no request names ``("", 0)``.
    """
    try:
        start = 8 + int.from_bytes(blob[:8], "little")
        if start > LARGEST_HEADER_BYTES:
            return "", 0
        first, last = json.loads(blob[8:start])["header"]["data_offsets"]
        if not 0 <= first <= last <= first + LARGEST_HEADER_BYTES:
            return "", 0
        header = json.loads(blob[start + first : start + last])
        experiment_id, server_round = header["experiment_id"], header["server_round"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", 0
    if type(experiment_id) is not str or type(server_round) is not int:
        return "", 0
    return experiment_id[:LONGEST_ID], min(max(server_round, 0), LARGEST_ROUND)


def _tensor(name: str, data: np.ndarray, written: _Written) -> np.ndarray:
    shape = tuple(written.shape)
    if math.prod(shape) > LARGEST_REQUEST_BYTES:
        raise ValueError(f"{name} of shape {shape} is too large")
    try:
        if written.bits < 32:
            return dequantise(data, written.bits, shape)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if str(data.dtype) not in DTYPES or data.shape != shape:
        raise ValueError(f"{name} is {data.dtype} of shape {data.shape}, must be {shape}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise ValueError(f"{name} holds a number that is not finite")
    return np.asarray(data)


def release_levels(request: Request) -> Levels | None:
    """Return the levels of a coarse release; None if its numbers are not rounded to any.

    Raises:
        ValueError: the event's numbers cannot be written with ``uplink_bits``.
    """
    event, bits = request.event, request.uplink_bits
    if event.trust == "secure-aggregation":
        if bits != 32:
            raise ValueError(
                f"uplink-bits={bits} must be 32 under trust=secure-aggregation: the modulus "
                "decides how many bits a number takes"
            )
        grid_step(event)
        return None
    if event.trust == "central" and bits != 32:
        raise ValueError(
            f"uplink-bits={bits} must be 32 under trust=central: no noise hides the rounding"
        )
    if bits == 32:
        return None
    step = grid_step(event)
    deviation, limit = noise_deviation(event) / step, event.clipping_bound / step
    if bits == 16 and limit + 6 * deviation > FLOAT16_MAX:
        raise ValueError(
            f"uplink-bits=16 needs more noise: with noise-stddev={event.noise_stddev:g} a number "
            f"can be {limit + 6 * deviation:.3g} grid steps, float16 holds {FLOAT16_MAX}; use 32"
        )
    if bits < 8 and event.noise_stddev < 1:
        raise ValueError(
            f"uplink-bits={bits} needs noise-stddev >= 1, is {event.noise_stddev:g}: its few "
            "levels span the noise; use 8"
        )
    return Levels.of(bits, deviation, limit) if bits in COARSE_BITS else None


def release_bytes(request: Request) -> int:
    """Return the length of an encoded release, which the request alone decides.

    Raises:
        ValueError: as ``release_levels``.
    """
    release_levels(request)
    return len(RELEASED) + packed_bytes(
        request.modulus_bits or request.uplink_bits, request.event.size
    )


def encode_release(steps: np.ndarray, request: Request) -> bytes:
    """Return a release of grid steps, int64 (size,), in the bits that the request asks for."""
    if request.modulus_bits:
        words = steps & (2**request.modulus_bits - 1)
        return RELEASED + pack_words(words, request.modulus_bits)
    if (levels := release_levels(request)) is not None:
        return RELEASED + pack_words(levels.index(steps), levels.bits)
    if request.uplink_bits == 16:
        clamped = np.clip(steps, -FLOAT16_MAX, FLOAT16_MAX)
        return RELEASED + bytes(clamped.astype("<f2").tobytes())
    return b"".join((RELEASED, steps.astype("<i4").data))


def answer_of(blob: bytes) -> memoryview:
    """Return what a client answered with.

    Raises:
        Refusal: the client refused; named by its code.
        MalformedReplyError: it is neither an answer nor a refusal.
    """
    if type(blob) is bytes and blob[:1] == REFUSED:
        raise _decode_refusal(blob)
    if type(blob) is not bytes or blob[:1] != RELEASED:
        size = f"{len(blob)} bytes" if isinstance(blob, bytes) else type(blob).__name__
        raise MalformedReplyError(f"reply of {size} must be bytes that begin with 0 or 1")
    return memoryview(blob)[len(RELEASED) :]


def decode_release(blob: bytes, request: Request) -> np.ndarray:
    """Return the grid steps of a release, int64 (size,); modulo 2^modulus_bits if there is one.

    Raises:
        Refusal: the client refused; named by its code.
        MalformedReplyError: it is neither a release of the request's size nor a refusal.
    """
    data, count = answer_of(blob), request.event.size
    if len(data) != release_bytes(request) - len(RELEASED):
        raise MalformedReplyError(f"reply of {len(blob)} bytes must be {release_bytes(request)}")
    if request.modulus_bits:
        return unpack_words(data, request.modulus_bits, count)
    if (levels := release_levels(request)) is not None:
        return levels.value(unpack_words(data, levels.bits, count))
    if request.uplink_bits == 16:
        halves = np.frombuffer(data, "<f2")
        if not np.isfinite(halves).all():
            raise MalformedReplyError("reply holds a number that is not finite")
        return np.asarray(np.rint(halves), dtype=np.int64)
    steps = np.frombuffer(data, "<i4").astype(np.int64)
    if request.event.trust == "central":
        _check_norm(steps, request.event)
    return steps


def _check_norm(steps: np.ndarray, event: Event) -> None:
    """Refuse an update without noise that is longer than C: it would outweigh the others."""
    values, main = steps * grid_step(event), event.rows * event.numbers
    whole = event.bounded == "message"
    parts = values[None] if whole else values[:main].reshape(event.rows, -1)
    norms = [*np.linalg.norm(parts, axis=1), 0.0 if whole else np.linalg.norm(values[main:])]
    if max(norms) > event.clipping_bound * (1 + 1e-9):
        raise MalformedReplyError(
            f"update of norm {max(norms):.6g} must be <= clipping-bound={event.clipping_bound}"
        )


class _Refused(BaseModel):
    """A refusal as a client sends it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    code: Annotated[int, Field(ge=0, lt=2**31)]
    limit: Annotated[str, Field(max_length=LONGEST_LIMIT)]


def encode_refusal(refusal: Refusal) -> bytes:
    """Return a refusal's code and the limit that decided, no fact about user or servers."""
    content = {"code": refusal.code, "limit": refusal.limit[:LONGEST_LIMIT]}
    return REFUSED + json.dumps(content).encode()


def _decode_refusal(blob: bytes) -> Refusal | MalformedReplyError:
    try:
        if len(blob) > LARGEST_REFUSAL_BYTES:
            raise ValueError(f"{len(blob)} bytes must be <= {LARGEST_REFUSAL_BYTES}")
        content = _Refused.model_validate_json(blob[1:])
    except ValueError as error:
        return MalformedReplyError(f"a refusal that cannot be read: {error}")
    return refusal_named(content.code, content.limit)
