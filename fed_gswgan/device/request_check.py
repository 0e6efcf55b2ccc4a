"""What a device makes sure of before it reads any data: the request alone decides.

Shapes: N sample batches, B batch, C channels, H and W image.
"""

import numpy as np

from fed_gswgan.config import CohortConfig
from fed_gswgan.data.writer_shard import IMAGE_SHAPE
from fed_gswgan.wire.messages import MalformedRequestError, TrainRequest

LARGEST_ROUND = 2**40


def check_request(request: TrainRequest, allowed: CohortConfig, num_classes: int) -> None:
    """Refuse a request that breaks the schema or asks for more than the device's settings allow.

    Raises:
        MalformedRequestError: naming the field, the rule and the value.
    """
    server_round, checkpoint_round = request.server_round, request.checkpoint_round
    if not 1 <= server_round <= LARGEST_ROUND:
        raise MalformedRequestError(f"server-round={server_round} must lie in 1 .. {LARGEST_ROUND}")
    if not 0 <= checkpoint_round < server_round:
        raise MalformedRequestError(
            f"checkpoint-round={checkpoint_round} must lie in 0 .. {server_round - 1}"
        )
    images = {"samples": request.samples_BCHW, "critic-samples": request.critic_samples_NBCHW}
    for name, array in images.items():
        if array.ndim == 0:
            raise MalformedRequestError(f"{name} is a single number, must be an array of images")
    samples = len(request.samples_BCHW)
    if not 1 <= samples <= allowed.batch_size:
        raise MalformedRequestError(
            f"samples={samples} must lie between 1 and batch-size={allowed.batch_size}"
        )
    batches = len(request.critic_samples_NBCHW)
    if batches > allowed.critic_batches:
        raise MalformedRequestError(
            f"critic-samples holds {batches} batches, must be <= critic-batches="
            f"{allowed.critic_batches}"
        )
    _check_images("samples", request.samples_BCHW, (samples,))
    _check_labels("labels", request.labels_B, (samples,), num_classes)
    shape = request.critic_samples_NBCHW.shape[:2]
    if batches and not 1 <= shape[-1] <= allowed.batch_size:
        raise MalformedRequestError(
            f"critic-samples holds batches of {shape[-1]}, must lie between 1 and batch-size="
            f"{allowed.batch_size}"
        )
    _check_images("critic-samples", request.critic_samples_NBCHW, shape)
    _check_labels("critic-labels", request.critic_labels_NB, shape, num_classes)


def _check_images(name: str, images: np.ndarray, leading: tuple[int, ...]) -> None:
    if images.dtype != np.float32 or images.shape != (*leading, *IMAGE_SHAPE):
        raise MalformedRequestError(
            f"{name} is {images.dtype} of shape {images.shape}, must be float32 of "
            f"{(*leading, *IMAGE_SHAPE)}"
        )
    # Written so that a NaN, which compares false with everything, is refused too.
    if not ((images >= 0) & (images <= 1)).all():
        raise MalformedRequestError(f"{name} must hold pixels in [0, 1] only")


def _check_labels(name: str, labels: np.ndarray, shape: tuple[int, ...], num_classes: int) -> None:
    if labels.dtype != np.int64 or labels.shape != shape:
        raise MalformedRequestError(
            f"{name} is {labels.dtype} of shape {labels.shape}, must be int64 of {shape}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise MalformedRequestError(f"{name} must lie in 0 .. {num_classes - 1}")
