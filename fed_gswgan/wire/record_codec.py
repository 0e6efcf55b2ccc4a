"""Messages to Flower records and back; what is in them is said in ``codec`` and ``update_codec``.

The guard's process knows no Flower: it reads and writes frames with those two.
"""

import math
from typing import Any

import numpy as np
from flwr.app import RecordDict

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.wire.codec import read_reply, read_request, write_reply, write_request
from fed_gswgan.wire.fields import Arrays, Settings
from fed_gswgan.wire.messages import MalformedReplyError, TrainReply, TrainRequest
from fed_gswgan.wire.number_format import DTYPES, packed_shape
from fed_gswgan.wire.record_fields import fields_of, records_of, require_small
from fed_gswgan.wire.update_codec import (
    read_update_reply,
    read_update_request,
    write_update_reply,
    write_update_request,
)
from fed_gswgan.wire.update_messages import UpdateReply, UpdateRequest


def encode_request(request: TrainRequest, downlink_codec: str) -> RecordDict:
    """Return the records of a request; see ``write_request``."""
    return records_of(*write_request(request, downlink_codec))


def decode_request(records: RecordDict) -> TrainRequest:
    """Return the request; MalformedInput as ``read_request``."""
    return read_request(*_request_fields(records))


def encode_reply(reply: TrainReply, uplink_codec: str) -> RecordDict:
    """Return the records of a reply; see ``write_reply``."""
    return records_of(*write_reply(reply, uplink_codec))


def decode_reply(
    records: RecordDict,
    server_round: int,
    event: SanitizedGradientEvent,
    shape: tuple[int, ...],
    uplink_codec: str,
) -> TrainReply:
    """Return the reply; MalformedReplyError and arguments as ``read_reply``."""
    size = math.prod(packed_shape(uplink_codec, shape))
    fields = _reply_fields(records, size, DTYPES[uplink_codec])
    return read_reply(*fields, server_round, event, shape, uplink_codec)


def encode_update_request(request: UpdateRequest) -> RecordDict:
    """Return the records of a request; see ``write_update_request``."""
    return records_of(*write_update_request(request))


def decode_update_request(records: RecordDict) -> UpdateRequest:
    """Return the request; MalformedInput as ``read_update_request``."""
    return read_update_request(*_request_fields(records))


def encode_update_reply(reply: UpdateReply) -> RecordDict:
    """Return the records of a reply; see ``write_update_reply``."""
    return records_of(*write_update_reply(reply))


def decode_update_reply(
    records: RecordDict, server_round: int, size: int, event: SanitizedGradientEvent
) -> UpdateReply:
    """Return the reply; MalformedReplyError and arguments as ``read_update_reply``."""
    fields = _reply_fields(records, size, np.float32)
    return read_update_reply(*fields, server_round, size, event)


def _request_fields(records: RecordDict) -> tuple[Arrays, Settings]:
    try:
        return fields_of(records)
    except (ValueError, TypeError) as error:
        raise MalformedInput(str(error)) from error


def _reply_fields(records: RecordDict, size: int, dtype: Any) -> tuple[Arrays, Settings]:
    """Return what a reply of so many numbers holds; a larger one is dropped before it is read."""
    try:
        require_small(records, size, dtype)
        return fields_of(records)
    except (ValueError, TypeError) as error:
        raise MalformedReplyError(f"reply dropped: {error}") from error
