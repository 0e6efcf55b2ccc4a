"""From a frame to a reply: decode, ask the guard of that kind, encode. In the guard's process."""

from collections.abc import Callable, Mapping

from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.device.guard import Guard
from fed_gswgan.device.guard_frame import Frame
from fed_gswgan.device.update_guard import UpdateGuard
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import MalformedInput, RequestExceedsPolicy
from fed_gswgan.wire.codec import read_request, write_reply
from fed_gswgan.wire.message_types import REGISTER, TRAIN, UPDATE
from fed_gswgan.wire.update_codec import read_update_request, write_update_reply

# Beside images in float32: labels, and whatever a codec puts next to them.
ROOM_BYTES = 4 * 2**20
FLOAT32_BYTES = 4


class GuardDesk:
    """Answers the frames of a relay for one client.

    Args:
        client_id: told to whoever registers.
        policy: the owner's.
        guard: of the client.
        update_guard: of the client, for FedAvg-GAN.
    """

    def __init__(
        self, client_id: str, policy: DevicePolicy, guard: Guard, update_guard: UpdateGuard
    ) -> None:
        self._client_id = client_id
        self._policy = policy
        self._guard = guard
        self._update_guard = update_guard

    def answer(self, request: Frame) -> Frame:
        """Return the reply to a request.

        Raises:
            Refusal: by name, before any data was read; also for a frame that asks for nothing.
        """
        answers: Mapping[str, Callable[[Frame], Frame]] = {
            REGISTER: self._register,
            TRAIN: self._train,
            UPDATE: self._update,
        }
        if request.kind not in answers:
            raise MalformedInput(f"kind {request.kind!r} must be one of {', '.join(answers)}")
        return answers[request.kind](request)

    def _register(self, request: Frame) -> Frame:
        return Frame(kind="reply", config={"client-id": self._client_id})

    def _train(self, request: Frame) -> Frame:
        self._refuse_many(request)
        asked = read_request(request.arrays, request.config)
        arrays, config = write_reply(self._guard.answer(asked), asked.uplink_codec)
        return Frame(kind="reply", arrays=arrays, config=config)

    def _refuse_many(self, request: Frame) -> None:
        """Refuse more images than may be asked for by their labels, before any is unpacked."""
        most = self._policy.max_samples
        for name, limit in (
            ("labels", most),
            ("critic-labels", most * self._policy.max_critic_batches),
        ):
            if name in request.arrays and (size := request.arrays[name].size) > limit:
                raise RequestExceedsPolicy(f"{name} of {size} images must be <= {limit}")

    def _update(self, request: Frame) -> Frame:
        asked = read_update_request(request.arrays, request.config)
        arrays, config = write_update_reply(self._update_guard.answer(asked))
        return Frame(kind="reply", arrays=arrays, config=config)


def largest_request_bytes(policy: DevicePolicy, weights: int) -> int:
    """Return how many bytes a request may have at most that the policy could allow.

    Args:
        policy: the owner's.
        weights: of generator and critic, which FedAvg-GAN sends.
    """
    pixels = IMAGE_SHAPE[0] * IMAGE_SHAPE[1] * IMAGE_SHAPE[2]
    images = policy.max_samples * (1 + policy.max_critic_batches)
    numbers = max(images * pixels, weights if policy.trusted_server else 0)
    return FLOAT32_BYTES * numbers + ROOM_BYTES
