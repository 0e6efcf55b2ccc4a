"""What the server tells of one round: sanitized or public quantities only."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """One round as it goes to the log, TensorBoard and rounds.jsonl.

    Attributes:
        server_round: from 1.
        asked: size of the cohort that was sent a request.
        received: well-formed replies that were combined.
        failed: error replies.
        malformed: replies that broke the schema.
        missing: no reply within the time-out.
        stepped: whether the generator took a step (enough replies came).
        downlink_bytes: payload of this round's requests.
        uplink_bytes: payload of this round's replies.
        bytes_by_client: downlink and uplink of every client that was asked.
        epsilon_server_bound: of the user asked most, by the server's own count.
        metrics: of the algorithm's step, by name.
        round_seconds: wall time since the round before was written down.
        waited_seconds: of it, for replies; the rest is the server's own work.
    """

    server_round: int
    asked: int
    received: int
    failed: int
    malformed: int
    missing: int
    stepped: bool
    downlink_bytes: int
    uplink_bytes: int
    bytes_by_client: dict[str, list[int]]
    epsilon_server_bound: float
    metrics: dict[str, float]
    round_seconds: float
    waited_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a metric that is not finite becomes null."""
        metrics = {n: v if math.isfinite(v) else None for n, v in self.metrics.items()}
        return asdict(self) | {"metrics": metrics}
