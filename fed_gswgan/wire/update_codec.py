"""Update requests and replies to arrays and settings and back, every type checked on the way in.

Weights are written as float32, the update too: what FedAvg-GAN sends.
"""

import numpy as np

from fed_gswgan.privacy.clipped_update import ClippedUpdate
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.wire.fields import Arrays, Fields, Settings, require_dtype, scalar
from fed_gswgan.wire.messages import MalformedReplyError
from fed_gswgan.wire.update_messages import UpdateReply, UpdateRequest

REQUEST_ARRAYS = {"generator", "critic"}
REQUEST_CONFIG = {"experiment-id", "server-round", "clipping-bound", "noise-stddev"}


def write_update_request(request: UpdateRequest) -> Fields:
    """Return what a request is sent as."""
    arrays = {"generator": request.generator_P, "critic": request.critic_Q}
    config = {
        "experiment-id": request.experiment_id,
        "server-round": request.server_round,
        "clipping-bound": request.clipping_bound,
        "noise-stddev": request.noise_stddev,
    }
    return arrays, config


def read_update_request(arrays: Arrays, config: Settings) -> UpdateRequest:
    """Return the request; the guard checks what it asks for.

    Raises:
        MalformedInput: a field is missing or of another type, by name.
    """
    try:
        if set(arrays) != REQUEST_ARRAYS or set(config) != REQUEST_CONFIG:
            raise ValueError(f"fields {sorted(arrays)} and {sorted(config)} are not a request's")
        for name, array in arrays.items():
            require_dtype(name, array, np.float32)
        return UpdateRequest(
            experiment_id=scalar(config, "experiment-id", str),
            server_round=scalar(config, "server-round", int),
            generator_P=arrays["generator"],
            critic_Q=arrays["critic"],
            clipping_bound=scalar(config, "clipping-bound", float),
            noise_stddev=scalar(config, "noise-stddev", float),
        )
    except (ValueError, TypeError) as error:
        raise MalformedInput(str(error)) from error


def write_update_reply(reply: UpdateReply) -> Fields:
    """Return what a reply is sent as."""
    return {"critic-update": reply.update.values_P}, {"server-round": reply.server_round}


def read_update_reply(
    arrays: Arrays, config: Settings, server_round: int, size: int, event: SanitizedGradientEvent
) -> UpdateReply:
    """Return the reply, checked against the round and the update that were asked for.

    A client that sends a longer update than C would have more weight than the noise hides.

    Raises:
        MalformedReplyError: naming the field, the rule and the value.
    """
    try:
        if set(arrays) != {"critic-update"} or set(config) != {"server-round"}:
            raise ValueError(f"fields {sorted(arrays)} and {sorted(config)} are not a reply's")
        if (answered := scalar(config, "server-round", int)) != server_round:
            raise ValueError(f"server-round={answered} must be {server_round}")
        values_P = arrays["critic-update"]
        require_dtype("critic-update", values_P, np.float32)
        if values_P.shape != (size,):
            raise ValueError(f"critic-update has shape {values_P.shape}, must be {(size,)}")
        norm = float(np.linalg.norm(values_P.astype(np.float64)))
        # Written so that a NaN, which compares false with everything, is refused too.
        if not norm <= event.clipping_bound * (1 + 1e-9):
            raise ValueError(f"critic-update of norm {norm:.6g} must be <= {event.clipping_bound}")
        update = ClippedUpdate(values_P=values_P, event=event)
        return UpdateReply(server_round=server_round, update=update)
    except (ValueError, TypeError) as error:
        raise MalformedReplyError(f"reply dropped: {error}") from error
