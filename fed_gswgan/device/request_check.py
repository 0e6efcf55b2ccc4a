"""What a device makes sure of before it reads any data: the request alone decides.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import numpy as np

from fed_gswgan.config import UPLINK_CODECS
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.device.field_check import check_array, check_round, check_types, check_word
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy
from fed_gswgan.privacy_config import MOST_FREQUENCIES
from fed_gswgan.validation import one_of
from fed_gswgan.wire.messages import TrainRequest

FIELD_TYPES = {
    "experiment_id": str, "server_round": int, "checkpoint_round": int, "samples_BCHW": np.ndarray,
    "labels_B": np.ndarray, "critic_samples_NBCHW": np.ndarray, "critic_labels_NB": np.ndarray,
    "clipping": str, "clipping_bound": float, "noise_stddev": float, "dct_frequencies": int,
    "uplink_codec": str,
}  # fmt: skip


def check_request(
    request: TrainRequest, policy: DevicePolicy, num_classes: int
) -> SanitizedGradientEvent:
    """Return the release that is asked for, if the request is well-formed and the policy allows it.

    What it costs to refuse does not grow with what is asked: sizes come before pixels.

    Raises:
        MalformedInput: the request breaks the schema; names the field, the rule and the value.
        RequestExceedsPolicy: it asks for more than the owner allows.
    """
    _check_schema(request)
    try:
        event = request.event()
    except ValueError as error:
        raise MalformedInput(str(error)) from error
    policy.admit(event)
    batches, *sizes = request.critic_samples_NBCHW.shape[:2]
    if batches > policy.max_critic_batches:
        raise RequestExceedsPolicy(
            f"critic-samples holds {batches} batches, must be <= {policy.max_critic_batches}"
        )
    if batches and sizes[0] > policy.max_samples:
        raise RequestExceedsPolicy(
            f"critic-samples holds batches of {sizes[0]}, must be <= {policy.max_samples}"
        )
    _check_pixels("samples", request.samples_BCHW)
    _check_pixels("critic-samples", request.critic_samples_NBCHW)
    _check_labels("labels", request.labels_B, num_classes)
    _check_labels("critic-labels", request.critic_labels_NB, num_classes)
    return event


def _check_schema(request: TrainRequest) -> None:
    check_types(request, FIELD_TYPES)
    check_word("experiment-id", request.experiment_id)
    check_word("clipping", request.clipping)
    check_word("uplink-codec", request.uplink_codec)
    check_round("dct-frequencies", request.dct_frequencies, 0, MOST_FREQUENCIES)
    try:
        one_of(UPLINK_CODECS, uplink_codec=request.uplink_codec)
    except ValueError as error:
        raise MalformedInput(str(error)) from error
    check_round("server-round", request.server_round)
    check_round("checkpoint-round", request.checkpoint_round, 0, request.server_round - 1)
    images = {"samples": request.samples_BCHW, "critic-samples": request.critic_samples_NBCHW}
    for name, array in images.items():
        if array.ndim == 0:
            raise MalformedInput(f"{name} is a single number, must be an array of images")
    samples = len(request.samples_BCHW)
    if samples < 1:
        raise MalformedInput(f"samples={samples} must be >= 1")
    check_array("samples", request.samples_BCHW, np.float32, (samples, *IMAGE_SHAPE))
    check_array("labels", request.labels_B, np.int64, (samples,))
    shape = request.critic_samples_NBCHW.shape[:2]
    if shape[0] and shape[-1] < 1:
        raise MalformedInput(f"critic-samples holds batches of {shape[-1]}, must be >= 1")
    check_array("critic-samples", request.critic_samples_NBCHW, np.float32, (*shape, *IMAGE_SHAPE))
    check_array("critic-labels", request.critic_labels_NB, np.int64, shape)


def _check_pixels(name: str, images: np.ndarray) -> None:
    # Written so that a NaN, which compares false with everything, is refused too.
    if not ((images >= 0) & (images <= 1)).all():
        raise MalformedInput(f"{name} must hold pixels in [0, 1] only")


def _check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise MalformedInput(f"{name} must lie in 0 .. {num_classes - 1}")
