"""Record of each round: report, bytes, log, rounds.jsonl and TensorBoard."""

import json
import logging
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from fed_gswgan.reporting.run_folder import finite_json, replace_file


@dataclass(frozen=True, kw_only=True)
class RoundReport:
    """One round as it goes to the log, TensorBoard and rounds.jsonl.

    Attributes:
        server_round: from 1.
        asked: size of the cohort that was sent a request.
        population: clients that it was drawn from.
        left_out: of them, those that the draw did not ask: absent, or without a budget.
        received: well-formed replies that were combined.
        failed: error replies.
        malformed: replies that broke the schema.
        missing: no reply within the time-out.
        noise_alone: of the received, those of clients that failed; None: devices do not tell.
        stepped: whether the generator took a step (enough replies came).
        stop: why the algorithm ends the run here; empty: it does not.
        downlink_bytes: payload of this round's requests.
        uplink_bytes: payload of this round's replies.
        bytes_by_client: downlink and uplink of every client that was asked.
        epsilon_server_bound: of the user asked most, by the server's own count.
        metrics: of the algorithm's step, by name.
        evaluation: on held-out images, by name, in the rounds that have one.
        round_seconds: wall time since the round before was written down.
        waited_seconds: of it, for replies; the rest is the server's own work.
    """

    server_round: int
    asked: int
    population: int
    left_out: int
    received: int
    failed: int
    malformed: int
    missing: int
    noise_alone: int | None = None
    stepped: bool
    stop: str = ""
    downlink_bytes: int
    uplink_bytes: int
    bytes_by_client: dict[str, list[int]]
    epsilon_server_bound: float
    metrics: dict[str, float]
    evaluation: Mapping[str, float] = field(default_factory=dict)
    round_seconds: float
    waited_seconds: float

    @property
    def informed(self) -> int:
        """Replies that hold anything of a client's data, as far as is known."""
        return self.received - (self.noise_alone or 0)

    def outcome(self) -> str:
        """Return how many of the cohort answered, and what became of the others."""
        others = {
            "noise alone": self.noise_alone or 0,
            "failed": self.failed,
            "malformed": self.malformed,
            "missing": self.missing,
        }
        words = ", ".join(f"{count} {name}" for name, count in others.items() if count)
        return f"{self.received} of {self.asked} replies" + (f" ({words})" if words else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a metric that is not finite becomes null."""
        plain, _ = finite_json(vars(self))
        return dict(plain)


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


logger = logging.getLogger(__name__)

ROUNDS = "rounds.jsonl"


class RoundLog:
    """Appends each round's report; a resumed run first drops the rounds it will run again.

    Args:
        run_folder: where ``rounds.jsonl`` lies.
        finished_round: the last one that stays.
        rounds: of the whole run.
    """

    def __init__(self, run_folder: Path, finished_round: int, rounds: int) -> None:
        self._rounds = rounds
        self._seconds: list[float] = []  # of each round that was written
        path = run_folder / ROUNDS
        if path.exists():
            kept = [
                line
                for line in path.read_text().splitlines()
                if _round_of(line) is not None and _round_of(line) <= finished_round  # type: ignore[operator]
            ]
            replace_file(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", buffering=1)

    def write(self, report: RoundReport) -> None:
        """Append one round and say it in one line."""
        self._file.write(json.dumps(report.to_dict(), allow_nan=False) + "\n")
        self._seconds.append(report.round_seconds)
        logger.info(
            "round %d/%d: %s, epsilon at most %.1f, %.1f kB down, %.1f kB up, %.2f s%s",
            report.server_round,
            self._rounds,
            report.outcome(),
            report.epsilon_server_bound,
            report.downlink_bytes / 1e3,
            report.uplink_bytes / 1e3,
            report.round_seconds,
            self._left(report.server_round),
        )

    def _left(self, server_round: int) -> str:
        """Say how long the other rounds take if they are as long as the median so far."""
        if server_round >= self._rounds:
            return ""
        seconds = statistics.median(self._seconds) * (self._rounds - server_round)
        return f", {timedelta(seconds=round(seconds))} left"

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def bytes_by_client(run_folder: Path) -> dict[str, list[int]]:
    """Return each client's downlink and uplink, summed over the rounds written so far."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with (run_folder / ROUNDS).open() as lines:
        for line in lines:
            for client_id, (downlink, uplink) in json.loads(line)["bytes_by_client"].items():
                sums[client_id][0] += downlink
                sums[client_id][1] += uplink
    return dict(sums)


def read_rounds(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rounds of a run, the last line left out if it is just being written."""
    path = run_folder / ROUNDS
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if _round_of(line) is not None]


def _round_of(line: str) -> int | None:
    """Return the line's round; None for a line that a crash cut short."""
    try:
        return int(json.loads(line)["server_round"])
    except (ValueError, KeyError, TypeError):
        return None


class TensorBoardWriter:
    """Writes ``area/name`` scalars and images; a resumed run overwrites the rounds it repeats."""

    def __init__(self, run_folder: Path, finished_round: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(  # type: ignore[no-untyped-call]
            str(run_folder / "tensorboard"), purge_step=finished_round + 1
        )
        self._downlink = self._uplink = 0

    def write(self, report: RoundReport, downlink_total: int, uplink_total: int) -> None:
        """Write one round's scalars."""
        scalars = {
            "privacy/epsilon_server_bound": report.epsilon_server_bound,
            "bytes/downlink_total": downlink_total,
            "bytes/uplink_total": uplink_total,
            "cohort/asked": report.asked,
            "cohort/replies": report.received,
            "cohort/failed": report.failed + report.malformed + report.missing,
            **{f"algorithm/{name}": value for name, value in report.metrics.items()},
            "time/round_seconds": report.round_seconds,
        }
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, report.server_round)  # type: ignore[no-untyped-call]

    def write_metrics(self, metrics: dict[str, float], server_round: int) -> None:
        """Write the metrics at the end of a run."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"metrics/{name}", value, server_round)  # type: ignore[no-untyped-call]

    def write_samples(self, grid_CHW: Tensor, server_round: int) -> None:
        """Write a grid of samples, float32 in [0, 1]."""
        self._writer.add_image("samples/by_class", grid_CHW, server_round)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Bring everything to disk."""
        self._writer.close()  # type: ignore[no-untyped-call]
