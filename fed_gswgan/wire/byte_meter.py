"""Counts what crosses the wire: the payload bytes of every record, in both directions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

FLOAT32_BYTES = 4
_KEPT = ("downlink_total", "uplink_total", "requests", "replies")

Record = ArrayRecord | ConfigRecord | MetricRecord


def payload_bytes(records: RecordDict) -> int:
    """Return the bytes of all records: arrays as serialised, keys and settings included.

    Framing by gRPC and TLS comes on top and is not payload.
    """
    return sum(_record_bytes(record) for record in records.values())


def _record_bytes(record: Record) -> int:
    if not isinstance(record, ConfigRecord):
        return record.count_bytes()
    # Flower cannot size an empty string or list, and a client may send one: it costs its key.
    sized = {key: value for key, value in record.items() if value not in ("", b"", [])}
    return ConfigRecord(sized).count_bytes() + sum(len(key) for key in record if key not in sized)


@dataclass
class RoundBytes:
    """Payload bytes of one round, by direction and client."""

    downlink: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    uplink: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    requests: int = 0
    replies: int = 0

    def sent(self, client_id: str, records: RecordDict) -> None:
        """Count a request."""
        self.downlink[client_id] += payload_bytes(records)
        self.requests += 1

    def received(self, client_id: str, records: RecordDict) -> None:
        """Count a reply that arrived, well-formed or not."""
        self.uplink[client_id] += payload_bytes(records)
        self.replies += 1

    def by_client(self) -> dict[str, list[int]]:
        """Return downlink and uplink of every client who was sent a request."""
        return {c: [size, self.uplink.get(c, 0)] for c, size in self.downlink.items()}


@dataclass
class ByteMeter:
    """Payload bytes by direction, of all rounds that ended.

    What each client cost in all is the sum over the rounds that were written down: this object
    does not grow with the clients. Registration, once each time a run is started or resumed, is
    counted apart.
    """

    downlink_total: int = 0
    uplink_total: int = 0
    requests: int = 0
    replies: int = 0
    registration_total: int = 0

    def add(self, round_bytes: RoundBytes) -> None:
        """Count a round that ended."""
        self.downlink_total += sum(round_bytes.downlink.values())
        self.uplink_total += sum(round_bytes.uplink.values())
        self.requests += round_bytes.requests
        self.replies += round_bytes.replies

    def registration(self, records: RecordDict) -> None:
        """Count one half of a node's registration."""
        self.registration_total += payload_bytes(records)

    def summary(
        self,
        generator_parameters: int,
        critic_parameters: int,
        by_client: Mapping[str, Sequence[int]],
    ) -> dict[str, Any]:
        """Return totals, means a message, and the ratio to exchanging models instead.

        The comparison sends generator and critic to, and a critic back from, the same clients in
        the same rounds, in float32: what averaging critics would send. ``by_client`` has the sums
        of ``RoundBytes.by_client`` over all rounds.
        """
        downlink, uplink = self.downlink_total, self.uplink_total
        models = FLOAT32_BYTES * (
            self.requests * (generator_parameters + critic_parameters)
            + self.replies * critic_parameters
        )
        return {
            "downlink_total": downlink,
            "uplink_total": uplink,
            "uplink_per_reply": uplink / self.replies if self.replies else 0.0,
            "downlink_per_request": downlink / self.requests if self.requests else 0.0,
            "registration_total": self.registration_total,
            "by_client": {
                client_id: {"downlink": downlink, "uplink": uplink}
                for client_id, (downlink, uplink) in sorted(by_client.items())
            },
            "model_exchange_total": models,
            "model_exchange_ratio": (downlink + uplink) / models if models else 0.0,
        }

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting from a checkpoint."""
        for name in _KEPT:
            setattr(self, name, state[name])
