"""Totals of payload bytes: requests and releases as a deployment sends them, one a client.

Framing by Flower, gRPC and TLS comes on top and is not payload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fed_gswgan.reporting.round_report import RoundReport

FLOAT32_BYTES = 4


@dataclass
class ByteMeter:
    """Payload bytes by direction, of all rounds that ended.

    Attributes:
        downlink_total: of requests.
        uplink_total: of replies.
        requests: clients asked, over all rounds.
        replies: clients of which a reply arrived.
        registration_total: of registrations, since the run was last started.
    """

    downlink_total: int = 0
    uplink_total: int = 0
    requests: int = 0
    replies: int = 0
    registration_total: int = 0

    def add(self, report: RoundReport) -> None:
        """Count a round that ended."""
        self.downlink_total += report.downlink_bytes
        self.uplink_total += report.uplink_bytes
        self.requests += report.asked
        self.replies += sum(uplink > 0 for _, uplink in report.bytes_by_client.values())

    def summary(
        self,
        generator_parameters: int,
        critic_parameters: int,
        by_client: Mapping[str, Sequence[int]],
    ) -> dict[str, Any]:
        """Return totals, means a message, and the ratio to exchanging models instead.

        The comparison sends generator and critic to, and a critic back from, the same clients in
        the same rounds, in float32: what averaging critics would send.

        Args:
            generator_parameters: numbers in the generator.
            critic_parameters: numbers in the critic.
            by_client: downlink and uplink of each client, over all rounds.
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
                client_id: {"downlink": down, "uplink": up}
                for client_id, (down, up) in sorted(by_client.items())
            },
            "model_exchange_total": models,
            "model_exchange_ratio": (downlink + uplink) / models if models else 0.0,
        }

    def state_dict(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting from a checkpoint."""
        self.__init__(**state)  # type: ignore[misc]
