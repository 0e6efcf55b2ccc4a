"""Collection of a round's releases: exchanged, checked, and summed as they arrive, in int64.

The sum is exact and the same whatever the order, and memory does not grow with the cohort.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fed_gswgan.algorithms.base import Mean
from fed_gswgan.privacy.mechanism import Event, grid_step, noise_deviation
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.progress import tell
from fed_gswgan.reporting.logs import one_line
from fed_gswgan.wire.message_types import RECORD, REPLIES
from fed_gswgan.wire.messages import (
    MalformedReplyError,
    Request,
    decode_release,
    release_levels,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.2
RECEIVED, FAILED, MALFORMED = "received", "failed", "malformed"

Decoded = TypeVar("Decoded")


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    timeout_seconds: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> Iterator[Message]:
    """Push the messages and yield the replies as they arrive, within ``timeout_seconds``.

    Flower's own loop sleeps up to 3 s. Here the pause between pulls grows from 5 ms to a hundredth
    of the time waited, at most 0.2 s. A late reply stays in the Grid; a reply to none of the
    messages is dropped.
    """
    started = time.monotonic()
    # Flower returns None for a message that could not be pushed: it gets no reply.
    pushed = grid.push_messages(messages) if messages else []
    pending = {message_id for message_id in pushed if message_id}
    while pending and not interrupted():
        for reply in grid.pull_messages(set(pending)):
            if reply.metadata.reply_to_message_id in pending:
                pending.remove(reply.metadata.reply_to_message_id)
                yield reply
        waited = time.monotonic() - started
        if waited > timeout_seconds:
            break
        if pending:
            time.sleep(min(max(POLL_SECONDS, waited / 100), LONGEST_POLL_SECONDS))


@dataclass
class Collected:
    """A round's releases, summed.

    Attributes:
        request: that was sent.
        cohort: clients that are asked.
        total: sum of all releases in grid steps, int64; modulo 2^modulus_bits if there is one.
        downlink: bytes sent to each client.
        uplink: bytes of each client's replies.
        refusals: how many there were, by name.
    """

    request: Request
    cohort: Sequence[str]
    total: np.ndarray = field(init=False)
    downlink: Counter[str] = field(default_factory=Counter)
    uplink: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    _asked: dict[tuple[int, str], Sequence[str]] = field(default_factory=dict)
    _answered: set[tuple[int, str]] = field(default_factory=set)
    _outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.request.event.size, np.int64)

    @property
    def received(self) -> int:
        """Releases in the sum."""
        return self._count(RECEIVED)

    @property
    def failed(self) -> int:
        """Clients whose node failed, or that refused."""
        return self._count(FAILED)

    @property
    def malformed(self) -> int:
        """Clients whose reply broke the schema."""
        return self._count(MALFORMED)

    @property
    def missing(self) -> int:
        """Clients of which nothing arrived."""
        return len(self.cohort) - len(self._outcomes)

    def ask(
        self, nodes: Mapping[tuple[int, str], Sequence[str]], sent: Mapping[str, bytes]
    ) -> None:
        """Note who is asked: clients by node and message group, in order, and what each is sent."""
        self._asked.update(nodes)
        for client_id, blob in sent.items():
            self.downlink[client_id] += len(blob)

    def add(self, messages: Iterable[Message]) -> None:
        """Check and sum releases as they arrive; nothing that a client sends stops a round."""
        for client_id, blob in self.replies(messages):
            steps = self.read(client_id, blob, lambda blob: decode_release(blob, self.request))
            if steps is not None:
                self.total += steps
                self._outcomes[client_id] = RECEIVED

    def take_sum(self, total: np.ndarray, clients: Iterable[str]) -> None:
        """Take the sum of these clients' releases."""
        self.total = total
        self._outcomes |= dict.fromkeys(clients, RECEIVED)

    def replies(self, messages: Iterable[Message]) -> Iterator[tuple[str, bytes]]:
        """Yield what each client sent; a node that sent nothing of the kind is counted."""
        for message in messages:
            place = message.metadata.src_node_id, message.metadata.group_id
            clients = self._asked.get(place)
            if clients is None:  # for a node that is gone the SuperLink answers, under its own id
                self._say("a node that was not asked", message)
            elif place in self._answered:
                self._say(f"{clients[0]}: answered already", message)
            else:
                self._answered.add(place)
                yield from self._of_node(message, clients)
                tell("replies", len(self._answered), len(self._asked))

    def read(
        self, client_id: str, blob: bytes, decode: Callable[[bytes], Decoded]
    ) -> Decoded | None:
        """Return what a client sent, decoded; None, and it is counted, if that cannot be."""
        try:
            return decode(blob)
        except MalformedReplyError as error:
            self.leave_out([client_id], MALFORMED, f"{client_id}: {error}")
        except Refusal as refusal:
            self.refusals[refusal.name] += 1
            self.leave_out([client_id], FAILED, f"{client_id}: {refusal.name} {refusal.limit}")
        return None

    def leave_out(
        self, clients: Sequence[str], outcome: str, why: str, message: Message | None = None
    ) -> None:
        """Count clients that are not in the sum, and say why."""
        self._outcomes |= dict.fromkeys(clients, outcome)
        self._say(why, message)

    def _of_node(self, message: Message, clients: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        if message.has_error():
            self.leave_out(clients, FAILED, clients[0], message)
            return
        record = message.content.get(RECORD)
        replies = record.get(REPLIES) if isinstance(record, ConfigRecord) else None
        if not isinstance(replies, list) or len(replies) != len(clients):
            why = f"{clients[0]}: not a reply for each of {len(clients)} clients"
            self.leave_out(clients, MALFORMED, why, message)
            return
        for client_id, blob in zip(clients, replies, strict=True):
            self.uplink[client_id] += len(blob) if isinstance(blob, bytes) else 0
            yield client_id, blob  # type: ignore[misc]  # whatever it is: who reads it checks

    def _count(self, outcome: str) -> int:
        return sum(found == outcome for found in self._outcomes.values())

    def _say(self, what: str, message: Message | None = None) -> None:
        reason = message.error.reason if message is not None and message.has_error() else ""
        text = one_line(f"{what}: {reason}" if reason else what)
        logger.warning("round %d: %s", self.request.server_round, text)


def mean_of(
    collected: Collected, expected: int, central_noise: Callable[[], NoiseSource]
) -> Mean | None:
    """Return the mean of a round's releases, as the trust model forms it; None: too few.

    Args:
        collected: the sum.
        expected: the cohort size, by which a sum under central trust is divided, since a client's
            weight must not depend on how many others answered.
        central_noise: the noise that a trusted server adds to the sum.
    """
    request, event, count = collected.request, collected.request.event, collected.received
    step, deviation = grid_step(event), noise_deviation(event)
    if count == 0:
        return None
    if event.trust == "central":
        total, count = collected.total * step, expected
        values = central_noise().add_noise(total, deviation) / count
        noise_stddev = deviation / count
    elif event.trust == "secure-aggregation":
        if count < event.honest:
            return None
        values = centred(collected.total, request.modulus_bits) * step / count
        noise_stddev = deviation / math.sqrt(count)
    else:
        levels = release_levels(request)
        steps = deviation / step
        gain = levels.gain(steps) if levels else 1.0
        values = collected.total * step * gain / count
        spread = levels.deviation(steps) if levels else steps
        noise_stddev = spread * step * gain / math.sqrt(count)
    main = event.rows * event.numbers
    update = values[:main].reshape(event.rows, event.numbers)
    return Mean(update, values[main:], count, noise_stddev)


SEEN_DEVIATIONS = 5.0
SEEN_SHARE = 0.1  # of the largest signal that clients can send


def looks_like_noise_alone(event: Event, mean: Mean) -> bool:
    """Tell whether the mean has no more energy than its noise, where a weak signal would show.

    The sum of n squared coordinates of the noise, in units of its variance, has mean n and standard
    deviation sqrt(2 n). The mean of updates of norm at most C in each of the bounded parts adds
    parts x C^2 at most, if all clients agree; where the noise hides a tenth of that, nothing is
    told.
    """
    values = np.concatenate([mean.update_RN.ravel(), mean.extra_E.ravel()]) / mean.noise_stddev
    deviation = math.sqrt(2 * values.size)
    largest = event.bounded_parts * (event.clipping_bound / mean.noise_stddev) ** 2
    if SEEN_SHARE * largest < SEEN_DEVIATIONS * deviation:
        return False
    return float(np.square(values).sum()) - values.size < SEEN_DEVIATIONS / 2 * deviation


def centred(total: np.ndarray, modulus_bits: int) -> np.ndarray:
    """Return the sum in [-2^(b-1), 2^(b-1)) that equals ``total`` modulo 2^b."""
    modulus = 2**modulus_bits
    return np.asarray((total + modulus // 2) % modulus - modulus // 2)


def modulus_bits_for(request: Request, cohort: int) -> int:
    """Return the bits that no sum of so many releases wraps in, but with probability 1e-12.

    The sum of n updates of norm at most C has coordinates of at most n C; its noise stays within 8
    standard deviations in each of 2^26 coordinates, and rounding adds at most n / 2 steps.
    """
    event = request.event
    step = grid_step(event)
    largest = (
        cohort * event.clipping_bound / step
        + 10 * noise_deviation(event) / step * math.sqrt(cohort)
        + cohort / 2
    )
    return math.ceil(math.log2(2 * largest + 2))
