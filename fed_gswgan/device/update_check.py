"""What a device makes sure of before it trains a critic it was sent: the request alone decides.

P and Q: numbers in the state vectors of generator and critic.
"""

import numpy as np
from torch import nn

from fed_gswgan.device.field_check import check_array, check_round, check_types, check_word
from fed_gswgan.models.registry import to_state_vector
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.wire.update_messages import UpdateRequest

FIELD_TYPES = {
    "experiment_id": str, "server_round": int, "generator_P": np.ndarray, "critic_Q": np.ndarray,
    "clipping_bound": float, "noise_stddev": float,
}  # fmt: skip


def check_update_request(
    request: UpdateRequest, policy: DevicePolicy, generator: nn.Module, critic: nn.Module
) -> SanitizedGradientEvent:
    """Return the release that is asked for, if the request is well-formed and the policy allows it.

    Args:
        request: as it came.
        policy: the owner's.
        generator: of the size that is expected.
        critic: likewise.

    Raises:
        MalformedInput: the request breaks the schema; names the field, the rule and the value.
        RequestExceedsPolicy: it asks for more than the owner allows.
    """
    check_types(request, FIELD_TYPES)
    check_word("experiment-id", request.experiment_id)
    check_round("server-round", request.server_round)
    try:
        event = request.event()
    except ValueError as error:
        raise MalformedInput(str(error)) from error
    policy.admit(event)
    _check_weights("generator", request.generator_P, generator)
    _check_weights("critic", request.critic_Q, critic)
    return event


def _check_weights(name: str, vector: np.ndarray, network: nn.Module) -> None:
    check_array(name, vector, np.float32, to_state_vector(network).shape)
    if not np.isfinite(vector).all():
        raise MalformedInput(f"{name} must hold finite numbers only")
