"""The last look at what leaves a client: the answer that was asked for, an id or an error.

A count, a loss or a second array in a reply would be a release that no ledger knows. Whoever adds
one to the app, in good faith or not, gets an error here.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.release_basis import release_shape
from fed_gswgan.wire.fields import scalar
from fed_gswgan.wire.message_types import CLIENT_FAILED, REGISTER, TRAIN, UPDATE
from fed_gswgan.wire.number_format import DTYPES, packed_shape

logger = logging.getLogger(__name__)

LONGEST_CLIENT_ID = 64
ANSWERS = {TRAIN: "sanitized-gradient", UPDATE: "critic-update"}  # the one array of the reply


class _Answered(NamedTuple):
    """What the request at hand may be answered with."""

    kind: str
    shape: tuple[int, ...] = ()
    dtype: type = np.float32
    server_round: object = None


def release_guard(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Pass the app's reply on if it is exactly what its request may be answered with.

    A Flower mod. The reply's shape and dtype follow from the request and its round is the
    request's, so none can depend on the data.
    """
    answered = _asked_for(message)  # read before the app could change the message
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    try:
        _require_expected(reply.content, answered)
    except Exception as error:  # NumPy raises a dozen types over bytes that are no array
        logger.error("a reply was held back: %s", error)
        reason = "client failed; see its own log"
        return Message(Error(CLIENT_FAILED, reason), reply_to=message)
    return reply


def _asked_for(message: Message) -> _Answered:
    kind = message.metadata.message_type
    try:
        arrays = message.content.array_records["arrays"]
        config = message.content.config_records["config"]
        server_round = config["server-round"]
        if kind == UPDATE:
            return _Answered(kind, tuple(arrays["critic"].shape), np.float32, server_round)
        samples = (*arrays["labels"].shape, *IMAGE_SHAPE)
        codec, frequencies = (
            scalar(config, "uplink-codec", str),
            scalar(config, "dct-frequencies", int),
        )
        values = release_shape(samples, frequencies)
        return _Answered(kind, packed_shape(codec, values), DTYPES[codec], server_round)
    except (KeyError, TypeError):
        return _Answered(kind)  # malformed, or a query: no gradient answers it


def _require_expected(content: RecordDict, answered: _Answered) -> None:
    kinds = {name: type(record) for name, record in content.items()}
    if answered.kind == REGISTER:
        if kinds != {"config": ConfigRecord}:
            raise ValueError(f"records {kinds} must be a config")
        identity = content.config_records["config"]
        if set(identity) != {"client-id"}:
            raise ValueError(f"{sorted(identity)} must be a client-id alone")
        client_id = identity["client-id"]
        if not isinstance(client_id, str) or len(client_id) > LONGEST_CLIENT_ID:
            raise ValueError(f"client-id must be a name of at most {LONGEST_CLIENT_ID} characters")
    elif answered.kind in ANSWERS:
        name = ANSWERS[answered.kind]
        if kinds != {"arrays": ArrayRecord, "config": ConfigRecord}:
            raise ValueError(f"records {kinds} must be arrays and config")
        arrays, config = content.array_records["arrays"], content.config_records["config"]
        if set(arrays) != {name} or dict(config) != {"server-round": answered.server_round}:
            raise ValueError(f"{sorted(arrays)} and {dict(config)} must be a {name} and its round")
        if type(config["server-round"]) is not type(answered.server_round):  # True equals 1
            raise ValueError(f"server-round={config['server-round']!r} must be of the asked type")
        written = arrays[name]
        values = written.numpy()
        if values.shape != answered.shape or values.dtype != np.dtype(answered.dtype):
            raise ValueError(
                f"{name} is {values.dtype} of shape {values.shape}, must be "
                f"{np.dtype(answered.dtype)} of shape {answered.shape}, as was asked"
            )
        if written != Array(values):
            raise ValueError(f"{name} must be written as its values alone ask for")
    else:
        raise ValueError(f"{answered.kind}: no reply to that may leave")
