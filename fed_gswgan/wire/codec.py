"""Requests and replies to Flower records and back, with every type checked on the way in.

Keys on the wire are the names of the messages' fields in kebab-case.
"""

import numpy as np
from flwr.app import RecordDict

from fed_gswgan.config import CodecConfig
from fed_gswgan.data.writer_shard import IMAGE_SHAPE
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.privacy.sanitizer import SanitizedGradient
from fed_gswgan.wire.messages import MalformedReplyError, TrainReply, TrainRequest
from fed_gswgan.wire.number_format import DTYPES, pack, unpack
from fed_gswgan.wire.record_fields import fields_of, records_of, require_dtype, scalar

PIXELS = (0.0, 1.0)
FLOAT16_ROUNDING = 2.0**-10
REQUEST_ARRAYS = {"samples", "labels", "critic-samples", "critic-labels"}
REQUEST_CONFIG = {
    "experiment-id", "server-round", "checkpoint-round",
    "clipping", "clipping-bound", "noise-stddev",
}  # fmt: skip


class Codec:
    """Encodes and decodes both directions; both sides build it from the same settings."""

    def __init__(self, config: CodecConfig) -> None:
        self._config = config

    def encode_request(self, request: TrainRequest) -> RecordDict:
        """Return the records of a request; images by the downlink codec, labels a byte each."""
        codec = self._config.downlink_codec
        arrays = {
            "samples": pack(request.samples_BCHW, codec, *PIXELS),
            "labels": request.labels_B.astype(np.uint8),
        }
        if len(request.critic_samples_NBCHW) > 0:
            arrays["critic-samples"] = pack(request.critic_samples_NBCHW, codec, *PIXELS)
            arrays["critic-labels"] = request.critic_labels_NB.astype(np.uint8)
        config = {
            "experiment-id": request.experiment_id,
            "server-round": request.server_round,
            "checkpoint-round": request.checkpoint_round,
            "clipping": request.clipping,
            "clipping-bound": request.clipping_bound,
            "noise-stddev": request.noise_stddev,
        }
        return records_of(arrays, config)

    def decode_request(self, records: RecordDict) -> TrainRequest:
        """Return the request; the guard checks what it asks for.

        Raises:
            MalformedInput: a field is missing or of another type, by name.
        """
        try:
            arrays, config = fields_of(records)
            unknown = (set(arrays) - REQUEST_ARRAYS) | (set(config) - REQUEST_CONFIG)
            if unknown:
                raise ValueError(f"fields {sorted(unknown)} are not a request's")
            if ("critic-samples" in arrays) != ("critic-labels" in arrays):
                raise ValueError("critic-samples and critic-labels must come together")
            samples = self._images(arrays, "samples")
            labels = _labels(arrays, "labels")
            if "critic-samples" in arrays:
                critic = self._images(arrays, "critic-samples")
                critic_labels = _labels(arrays, "critic-labels")
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
            )
        except KeyError as error:
            raise MalformedInput(f"{error} is missing") from error
        except (ValueError, TypeError) as error:
            raise MalformedInput(str(error)) from error

    def encode_reply(self, reply: TrainReply) -> RecordDict:
        """Return the records of a reply; the gradient is written after its noise, so for free."""
        limit = largest_coordinate(reply.gradient.event)
        gradient = pack(reply.gradient.values_BCHW, self._config.uplink_codec, -limit, limit)
        return records_of({"sanitized-gradient": gradient}, {"server-round": reply.server_round})

    def decode_reply(
        self, records: RecordDict, server_round: int, event: SanitizedGradientEvent
    ) -> TrainReply:
        """Return the reply, checked against the round and the release that were asked for.

        Raises:
            MalformedReplyError: naming the field, the rule and the value.
        """
        try:
            arrays, config = fields_of(records)
            if set(arrays) != {"sanitized-gradient"} or set(config) != {"server-round"}:
                raise ValueError(f"fields {sorted(arrays)} and {sorted(config)} are not a reply's")
            answered = scalar(config, "server-round", int)
            if answered != server_round:
                raise ValueError(f"server-round={answered} must be {server_round}")
            packed, codec = arrays["sanitized-gradient"], self._config.uplink_codec
            require_dtype("sanitized-gradient", packed, DTYPES[codec])
            expected = (event.samples, *IMAGE_SHAPE)
            if packed.shape != expected:
                raise ValueError(f"sanitized-gradient has shape {packed.shape}, must be {expected}")
            limit = largest_coordinate(event)
            values = unpack(packed, codec, -limit, limit)
            # Written so that a NaN, which compares false with everything, is refused too.
            if not (np.abs(values) <= limit * (1 + FLOAT16_ROUNDING)).all():
                raise ValueError(f"sanitized-gradient must be finite and within +-{limit:.6g}")
            gradient = SanitizedGradient(values_BCHW=values, event=event)
            return TrainReply(server_round=server_round, gradient=gradient)
        except (ValueError, TypeError) as error:
            raise MalformedReplyError(f"reply dropped: {error}") from error

    def _images(self, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
        codec = self._config.downlink_codec
        require_dtype(name, arrays[name], DTYPES[codec])
        return unpack(arrays[name], codec, *PIXELS)


def largest_coordinate(event: SanitizedGradientEvent) -> float:
    """Return the end of the public range that a reply's coordinates are written in.

    From the settings alone: an honest coordinate leaves it, and is clamped, once in a thousand
    million; a dishonest reply has no more weight than this.
    """
    return event.clipping_bound * (1 + 6 * event.noise_stddev)


def _labels(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    require_dtype(name, arrays[name], np.uint8)
    return arrays[name].astype(np.int64)
