"""Counts what crosses the wire: the payload bytes of every record, in both directions."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

FLOAT32_BYTES = 4

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
class ByteMeter:
    """Payload bytes by direction, by client and by round.

    Registration, once each time a run is started or resumed, is counted apart.
    """

    downlink_by_client: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    uplink_by_client: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    requests: int = 0
    replies: int = 0
    registration_total: int = 0
    round_downlink: int = 0
    round_uplink: int = 0

    def start_round(self) -> None:
        """Set the counts of the current round to 0."""
        self.round_downlink = self.round_uplink = 0

    def downlink(self, client_id: str, records: RecordDict) -> None:
        """Count a request that is about to be sent."""
        size = payload_bytes(records)
        self.downlink_by_client[client_id] += size
        self.round_downlink += size
        self.requests += 1

    def uplink(self, client_id: str, records: RecordDict) -> None:
        """Count a reply that arrived, well-formed or not."""
        size = payload_bytes(records)
        self.uplink_by_client[client_id] += size
        self.round_uplink += size
        self.replies += 1

    def registration(self, records: RecordDict) -> None:
        """Count one half of a node's registration."""
        self.registration_total += payload_bytes(records)

    def summary(self, generator_parameters: int, critic_parameters: int) -> dict[str, Any]:
        """Return totals, means a message, and the ratio to exchanging models instead.

        The comparison sends generator and critic to, and a critic back from, the same clients in
        the same rounds, in float32: what averaging critics would send.
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
                client_id: {"downlink": size, "uplink": self.uplink_by_client.get(client_id, 0)}
                for client_id, size in sorted(self.downlink_by_client.items())
            },
            "model_exchange_total": models,
            "model_exchange_ratio": (downlink + uplink) / models if models else 0.0,
        }

    @property
    def downlink_total(self) -> int:
        """Bytes sent to clients so far."""
        return sum(self.downlink_by_client.values())

    @property
    def uplink_total(self) -> int:
        """Bytes received from clients so far."""
        return sum(self.uplink_by_client.values())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain JSON values."""
        return {
            "downlink_by_client": dict(self.downlink_by_client),
            "uplink_by_client": dict(self.uplink_by_client),
            "requests": self.requests,
            "replies": self.replies,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self.downlink_by_client = defaultdict(int, state["downlink_by_client"])
        self.uplink_by_client = defaultdict(int, state["uplink_by_client"])
        self.requests = state["requests"]
        self.replies = state["replies"]
