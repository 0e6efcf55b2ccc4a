"""What a device makes sure of before it reads any data: the request alone decides.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import numpy as np

from fed_gswgan.data.writer_shard import IMAGE_SHAPE
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy
from fed_gswgan.wire.messages import TrainRequest

LARGEST_ROUND = 2**40
LONGEST_ID = 64
FIELD_TYPES = {
    "experiment_id": str, "server_round": int, "checkpoint_round": int, "samples_BCHW": np.ndarray,
    "labels_B": np.ndarray, "critic_samples_NBCHW": np.ndarray, "critic_labels_NB": np.ndarray,
    "clipping": str, "clipping_bound": float, "noise_stddev": float,
}  # fmt: skip


def check_request(
    request: TrainRequest, policy: DevicePolicy, num_classes: int
) -> SanitizedGradientEvent:
    """Return the release that is asked for, if the request is well-formed and the policy allows it.

    Raises:
        MalformedInput: the request breaks the schema; names the field, the rule and the value.
        RequestExceedsPolicy: it asks for more than the owner allows.
    """
    _check_schema(request, num_classes)
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
    return event


def _check_schema(request: TrainRequest, num_classes: int) -> None:
    for name, expected in FIELD_TYPES.items():
        if type(value := getattr(request, name)) is not expected:
            raise MalformedInput(
                f"{name.replace('_', '-')} is a {type(value).__name__}, must be {expected.__name__}"
            )
    experiment_id = request.experiment_id
    if len(experiment_id) > LONGEST_ID or not experiment_id.isprintable():
        raise MalformedInput(
            f"experiment-id of {len(experiment_id)} characters must be printable and have at most "
            f"{LONGEST_ID}"
        )
    server_round, checkpoint_round = request.server_round, request.checkpoint_round
    if not 1 <= server_round <= LARGEST_ROUND:
        raise MalformedInput(f"server-round={server_round} must lie in 1 .. {LARGEST_ROUND}")
    if not 0 <= checkpoint_round < server_round:
        raise MalformedInput(
            f"checkpoint-round={checkpoint_round} must lie in 0 .. {server_round - 1}"
        )
    images = {"samples": request.samples_BCHW, "critic-samples": request.critic_samples_NBCHW}
    for name, array in images.items():
        if array.ndim == 0:
            raise MalformedInput(f"{name} is a single number, must be an array of images")
    samples = len(request.samples_BCHW)
    if samples < 1:
        raise MalformedInput(f"samples={samples} must be >= 1")
    _check_images("samples", request.samples_BCHW, (samples,))
    _check_labels("labels", request.labels_B, (samples,), num_classes)
    shape = request.critic_samples_NBCHW.shape[:2]
    if shape[0] and shape[-1] < 1:
        raise MalformedInput(f"critic-samples holds batches of {shape[-1]}, must be >= 1")
    _check_images("critic-samples", request.critic_samples_NBCHW, shape)
    _check_labels("critic-labels", request.critic_labels_NB, shape, num_classes)


def _check_images(name: str, images: np.ndarray, leading: tuple[int, ...]) -> None:
    if images.dtype != np.float32 or images.shape != (*leading, *IMAGE_SHAPE):
        raise MalformedInput(
            f"{name} is {images.dtype} of shape {images.shape}, must be float32 of "
            f"{(*leading, *IMAGE_SHAPE)}"
        )
    # Written so that a NaN, which compares false with everything, is refused too.
    if not ((images >= 0) & (images <= 1)).all():
        raise MalformedInput(f"{name} must hold pixels in [0, 1] only")


def _check_labels(name: str, labels: np.ndarray, shape: tuple[int, ...], num_classes: int) -> None:
    if labels.dtype != np.int64 or labels.shape != shape:
        raise MalformedInput(
            f"{name} is {labels.dtype} of shape {labels.shape}, must be int64 of {shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise MalformedInput(f"{name} must lie in 0 .. {num_classes - 1}")
