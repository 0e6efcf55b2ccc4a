"""One round of secure aggregation: five exchanges, and the server knows a sum and no release.

What is sent and what comes off again is ``fed_gswgan.secure_aggregation.aggregation``'s; here is
whom to ask, and what became of each client.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fed_gswgan.secure_aggregation.aggregation import Aggregation, TooFewDevices
from fed_gswgan.secure_aggregation.keys import SIGNATURE_BYTES
from fed_gswgan.secure_aggregation.protocol import Phase
from fed_gswgan.secure_aggregation.terms import threshold_of
from fed_gswgan.wire.encoding import packed_bytes, unpack_words
from fed_gswgan.wire.messages import answer_of
from fed_gswgan.wire.sum_messages import Announcement, SumMessage
from server.collect import MALFORMED, Collected

logger = logging.getLogger(__name__)

# Sends each client its message of a phase, and yields the nodes' replies.
Send = Callable[[Phase, Mapping[str, bytes]], Iterable[Message]]


@dataclass(frozen=True)
class SecureSum:
    """The sum of a cohort's releases.

    Attributes:
        collected: takes the sum, and counts who is in it.
        blob: the request, encoded.
        keys: public key of each client of the cohort.
        colluding: clients that may help the server.
        send: reaches the clients.
    """

    collected: Collected
    blob: bytes
    keys: Mapping[str, bytes]
    colluding: int
    send: Send

    def run(self) -> None:
        """Ask the cohort, phase after phase; why a sum could not be formed is said in the log."""
        request = self.collected.request
        clients = sorted(self.keys, key=self.keys.__getitem__)
        announced = Announcement(
            threshold_of(len(clients), self.colluding),
            tuple(self.keys[client] for client in clients),
            self.blob,
        )
        enough = request.event.honest + self.colluding
        aggregation = Aggregation(announced.terms(request), enough)
        try:
            survivors, total = self._phases(aggregation, clients, announced.encode())
        except TooFewDevices as error:
            logger.warning("round %d: no sum: %s", request.server_round, error)
        else:
            self.collected.take_sum(total, [clients[place] for place in survivors])

    def _phases(
        self, aggregation: Aggregation, clients: Sequence[str], announcement: bytes
    ) -> tuple[Sequence[int], np.ndarray]:
        request = self.collected.request

        def message(phase: Phase, body: bytes) -> bytes:
            named = request.experiment_id, request.server_round
            return SumMessage(phase, *named, body).encode()

        def ask(phase: Phase, blobs: Mapping[int, bytes]) -> Iterator[tuple[int, bytes]]:
            messages = {clients[place]: blob for place, blob in blobs.items()}
            for client_id, blob in self.collected.replies(self.send(phase, messages)):
                answer = self.collected.read(client_id, blob, lambda blob: bytes(answer_of(blob)))
                if answer is not None:
                    yield places[client_id], answer

        def asked(phase: Phase, body: bytes) -> dict[int, bytes]:
            return dict(ask(phase, dict.fromkeys(aggregation.taking_part, message(phase, body))))

        places = {client_id: place for place, client_id in enumerate(clients)}
        try:
            keys = aggregation.take_keys(asked(Phase.KEYS, announcement))
            sealed = aggregation.take_shares(asked(Phase.SHARES, keys))
            each = {place: message(Phase.MASKED, body) for place, body in sealed.items()}
            self._add_masked(aggregation, ask(Phase.MASKED, each))
            survivors, in_sum = aggregation.survivors(), aggregation.taking_part
            signatures = aggregation.take_signatures(asked(Phase.SURVIVORS, survivors))
            return in_sum, aggregation.unmask(asked(Phase.UNMASKED, signatures))
        finally:
            for place, why in aggregation.dropped.items():
                self.collected.leave_out([clients[place]], MALFORMED, f"{clients[place]}: {why}")

    def _add_masked(self, aggregation: Aggregation, replies: Iterable[tuple[int, bytes]]) -> None:
        request = self.collected.request
        length = packed_bytes(request.modulus_bits, request.event.size)
        for place, answer in replies:
            payload, signature = answer[:length], answer[length:]
            if len(answer) != length + SIGNATURE_BYTES:
                aggregation.dropped[place] = f"masked release of {len(answer)} bytes"
                continue
            words = unpack_words(memoryview(payload), request.modulus_bits, request.event.size)
            aggregation.add_masked(place, words, payload, signature)
