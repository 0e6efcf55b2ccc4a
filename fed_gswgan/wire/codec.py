"""Requests and replies to arrays and settings and back, every type checked on the way in.

Names on the wire are those of the messages' fields in kebab-case.
"""

import math

import numpy as np

from fed_gswgan.config import DOWNLINK_CODECS
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.privacy.events import SanitizedGradientEvent, largest_reply_norm, largest_row_norm
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.privacy.sanitizer import SanitizedGradient
from fed_gswgan.validation import one_of
from fed_gswgan.wire.coarse_gradient import COARSE_RANGE, coarse_gain
from fed_gswgan.wire.fields import Arrays, Fields, Settings, require_dtype, scalar
from fed_gswgan.wire.messages import MalformedReplyError, TrainReply, TrainRequest
from fed_gswgan.wire.number_format import (
    DEFLATED,
    DTYPES,
    deflate,
    inflate,
    pack,
    packed_shape,
    rounding,
    unpack,
)

PIXELS = (0.0, 1.0)
FLOAT16_ROUNDING = 2.0**-10
MOST_DEFLATED_IMAGES = 2**16  # in one array: a small message must not become a large one
REQUEST_ARRAYS = {"samples", "labels", "critic-samples", "critic-labels"}
REQUEST_CONFIG = {
    "experiment-id", "server-round", "checkpoint-round",
    "clipping", "clipping-bound", "noise-stddev", "dct-frequencies",
    "downlink-codec", "uplink-codec",
}  # fmt: skip


def write_request(request: TrainRequest, downlink_codec: str) -> Fields:
    """Return what a request is sent as; images by the codec, labels a byte each."""
    arrays = {
        "samples": _write_images(request.samples_BCHW, downlink_codec),
        "labels": request.labels_B.astype(np.uint8),
    }
    if len(request.critic_samples_NBCHW) > 0:
        arrays["critic-samples"] = _write_images(request.critic_samples_NBCHW, downlink_codec)
        arrays["critic-labels"] = request.critic_labels_NB.astype(np.uint8)
    config = {
        "experiment-id": request.experiment_id,
        "server-round": request.server_round,
        "checkpoint-round": request.checkpoint_round,
        "clipping": request.clipping,
        "clipping-bound": request.clipping_bound,
        "noise-stddev": request.noise_stddev,
        "dct-frequencies": request.dct_frequencies,
        "downlink-codec": downlink_codec,
        "uplink-codec": request.uplink_codec,
    }
    return arrays, config


def read_request(arrays: Arrays, config: Settings) -> TrainRequest:
    """Return the request; the guard checks what it asks for.

    Raises:
        MalformedInput: a field is missing or of another type, by name.
    """
    try:
        unknown = (set(arrays) - REQUEST_ARRAYS) | (set(config) - REQUEST_CONFIG)
        if unknown:
            raise ValueError(f"fields {sorted(unknown)} are not a request's")
        if ("critic-samples" in arrays) != ("critic-labels" in arrays):
            raise ValueError("critic-samples and critic-labels must come together")
        codec = scalar(config, "downlink-codec", str)
        one_of(DOWNLINK_CODECS, downlink_codec=codec)
        labels = _labels(arrays, "labels")
        samples = _read_images(arrays, "samples", labels, codec)
        if "critic-samples" in arrays:
            critic_labels = _labels(arrays, "critic-labels")
            critic = _read_images(arrays, "critic-samples", critic_labels, codec)
        else:
            critic = np.empty((0, *samples.shape), dtype=np.float32)
            critic_labels = np.empty((0, *labels.shape), dtype=np.int64)
        return TrainRequest(
            experiment_id=scalar(config, "experiment-id", str),
            server_round=scalar(config, "server-round", int),
            checkpoint_round=scalar(config, "checkpoint-round", int),
            samples_BCHW=samples,
            labels_B=labels,
            critic_samples_NBCHW=critic,
            critic_labels_NB=critic_labels,
            clipping=scalar(config, "clipping", str),
            clipping_bound=scalar(config, "clipping-bound", float),
            noise_stddev=scalar(config, "noise-stddev", float),
            dct_frequencies=scalar(config, "dct-frequencies", int),
            uplink_codec=scalar(config, "uplink-codec", str),
        )
    except KeyError as error:
        raise MalformedInput(f"{error} is missing") from error
    except (ValueError, TypeError) as error:
        raise MalformedInput(str(error)) from error


def write_reply(reply: TrainReply, uplink_codec: str) -> Fields:
    """Return what a reply is sent as; the gradient is written after its noise, so for free."""
    limit = largest_coordinate(reply.gradient.event, uplink_codec)
    gradient = pack(reply.gradient.values_BCHW, uplink_codec, -limit, limit)
    return {"sanitized-gradient": gradient}, {"server-round": reply.server_round}


def read_reply(
    arrays: Arrays,
    config: Settings,
    server_round: int,
    event: SanitizedGradientEvent,
    shape: tuple[int, ...],
    uplink_codec: str,
) -> TrainReply:
    """Return the reply, checked against the round and the release that were asked for.

    Args:
        arrays: as they came.
        config: as it came.
        server_round: that was asked.
        event: the release that was asked for.
        shape: of its values.
        uplink_codec: they were asked in.

    Raises:
        MalformedReplyError: naming the field, the rule and the value.
    """
    try:
        expected = packed_shape(uplink_codec, shape)
        if set(arrays) != {"sanitized-gradient"} or set(config) != {"server-round"}:
            raise ValueError(f"fields {sorted(arrays)} and {sorted(config)} are not a reply's")
        answered = scalar(config, "server-round", int)
        if answered != server_round:
            raise ValueError(f"server-round={answered} must be {server_round}")
        packed = arrays["sanitized-gradient"]
        require_dtype("sanitized-gradient", packed, DTYPES[uplink_codec])
        if packed.shape != expected:
            raise ValueError(f"sanitized-gradient has shape {packed.shape}, must be {expected}")
        limit = largest_coordinate(event, uplink_codec)
        values = unpack(packed, uplink_codec, -limit, limit, shape)
        # Written so that a NaN, which compares false with everything, is refused too.
        if not (np.abs(values) <= limit * (1 + FLOAT16_ROUNDING)).all():
            raise ValueError(f"sanitized-gradient must be finite and within +-{limit:.6g}")
        if uplink_codec not in COARSE_RANGE:
            _require_honest_norms(values, event, rounding(uplink_codec, -limit, limit))
        values *= np.float32(coarse_gain(uplink_codec))
        gradient = SanitizedGradient(values_BCHW=values, event=event)
        return TrainReply(server_round=server_round, gradient=gradient)
    except (ValueError, TypeError) as error:
        raise MalformedReplyError(f"reply dropped: {error}") from error


def largest_coordinate(event: SanitizedGradientEvent, uplink_codec: str) -> float:
    """Return the end of the public range that a reply's coordinates are written in.

    From the settings alone. With 8 bits and more an honest coordinate leaves it, and is clamped,
    once in a thousand million. With fewer bits the range is narrow, in units of the noise, and
    clamping is part of how they are rounded; it alone bounds a dishonest reply then.
    """
    if uplink_codec in COARSE_RANGE:
        return event.clipping_bound * event.noise_stddev * COARSE_RANGE[uplink_codec]
    return event.clipping_bound * (1 + 6 * event.noise_stddev)


def _require_honest_norms(
    values_BCHW: np.ndarray, event: SanitizedGradientEvent, rounding: float
) -> None:
    """Refuse rows or replies longer than clipping, noise and rounding make an honest one.

    So a dishonest client moves the mean by no more than an honest one's noise may.
    """
    rows = values_BCHW.reshape(len(values_BCHW), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    row_limit = largest_row_norm(event, rows.shape[1]) + rounding * math.sqrt(rows.shape[1])
    if norms.max() > row_limit:
        raise ValueError(
            f"sanitized-gradient has a row of norm {norms.max():.6g}, must be <= {row_limit:.6g}"
        )
    limit = largest_reply_norm(event, rows.shape[1]) + rounding * math.sqrt(rows.size)
    if (norm := float(np.linalg.norm(norms))) > limit:
        raise ValueError(f"sanitized-gradient has norm {norm:.6g}, must be <= {limit:.6g}")


def _write_images(images: np.ndarray, codec: str) -> np.ndarray:
    rows = images.reshape(-1, *images.shape[-3:])
    packed = pack(rows, codec.removesuffix(DEFLATED), *PIXELS)
    return deflate(packed) if codec.endswith(DEFLATED) else packed.reshape(images.shape)


def _read_images(arrays: Arrays, name: str, labels: np.ndarray, codec: str) -> np.ndarray:
    """Return the images, float32; those that came compressed are as many as there are labels."""
    written, number = arrays[name], codec.removesuffix(DEFLATED)
    require_dtype(name, written, DTYPES[number])
    if not codec.endswith(DEFLATED):
        return unpack(written, number, *PIXELS, written.shape)
    if labels.size > MOST_DEFLATED_IMAGES:
        raise ValueError(f"{name} holds {labels.size} images, must be <= {MOST_DEFLATED_IMAGES}")
    rows = (labels.size, *IMAGE_SHAPE)
    try:
        packed = inflate(written, packed_shape(number, rows))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    return unpack(packed, number, *PIXELS, rows).reshape(*labels.shape, *IMAGE_SHAPE)


def _labels(arrays: Arrays, name: str) -> np.ndarray:
    require_dtype(name, arrays[name], np.uint8)
    return arrays[name].astype(np.int64)
