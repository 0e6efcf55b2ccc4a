"""The round that every algorithm shares: select, count, ask, read, step; and the loop of rounds."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fed_gswgan.config import Config
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.profiling import timed
from fed_gswgan.reporting.round_report import RoundReport
from fed_gswgan.seeding import SeedStream
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.wire.byte_meter import ByteMeter, RoundBytes
from server.budgeted_cohort import BudgetedCohort
from server.exchange import exchange
from server.nodes import Nodes
from server.presence import RunStalled, wait_for_clients
from server.reply_reading import Replies, read_replies

logger = logging.getLogger(__name__)

PATIENCE_ROUNDS = 5


class Step(NamedTuple):
    """What a round did to the generator."""

    taken: bool
    combined_norm: float = 0.0
    generator_gradient_norm: float = 0.0


@dataclass(frozen=True)
class AskedRound:
    """The round in progress.

    Attributes:
        clients: client id of each node of the cohort.
        bytes: payload of its messages.
    """

    clients: dict[int, str]
    bytes: RoundBytes


class RoundStrategy(Strategy):
    """What is common to all algorithms; one says what is asked, what is read, what is stepped.

    Args:
        config: of the run.
        experiment_id: part of every release's key; a resumed run keeps it.
        num_classes: of the data set.
        nodes: the population, sorted by client id, and each one's node id.
        trainer: the generator.
        user_ledgers: the server's own count of private releases.
        byte_meter: counts both directions.
        event: what one reply costs its user.
        reply_size: numbers in a reply.
        first_round: 1, or the one after the checkpoint.
        checkpoint_round: tells the newest round the server could fall back to.
        on_round: gets every round's report.
        interrupted: True once the run shall end.
    """

    message_type: str

    def __init__(
        self,
        *,
        config: Config,
        experiment_id: str,
        num_classes: int,
        nodes: Nodes,
        trainer: GeneratorTrainer,
        user_ledgers: UserLedgers,
        byte_meter: ByteMeter,
        event: SanitizedGradientEvent,
        reply_size: int,
        first_round: int = 1,
        checkpoint_round: Callable[[], int] = lambda: 0,
        on_round: Callable[[RoundReport], None] = lambda report: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config
        self.experiment_id = experiment_id
        self.num_classes = num_classes
        self.nodes = nodes
        self.trainer = trainer
        self.user_ledgers = user_ledgers
        self.byte_meter = byte_meter
        self.event = event
        self.reply_size = reply_size
        self.first_round = first_round
        self.checkpoint_round = checkpoint_round
        self.on_round = on_round
        self.interrupted = interrupted
        self.asked = AskedRound({}, RoundBytes())
        self.absent: frozenset[str] = frozenset()
        self.seeds = SeedStream(config.run.seed)
        self.cohorts = BudgetedCohort(nodes, config.cohort, self.seeds, user_ledgers, event)

    @abstractmethod
    def build_records(self, server_round: int) -> RecordDict:
        """Return what every client of the cohort is sent."""

    @abstractmethod
    def decode(self, records: RecordDict, server_round: int) -> np.ndarray:
        """Return the array of a reply; MalformedReplyError if it is not what was asked for."""

    @abstractmethod
    def step_generator(self, server_round: int, replies: Replies) -> Step:
        """Combine the replies, of which enough came, and step the generator."""

    def train_round(self, grid: Grid, server_round: int, last_round: int) -> RoundReport | None:
        """Run one round; return None if it was interrupted and must be asked again."""
        started = time.monotonic()
        absent = wait_for_clients(grid, self.nodes, self.config.cohort, self.interrupted)
        if absent is None:
            return None
        self.absent = absent
        messages = self.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
        asked_at = time.monotonic()
        timeout = self.config.cohort.reply_timeout_seconds
        with timed("exchange"):
            arrived = exchange(grid, messages, timeout, self.interrupted)
        waited_seconds = time.monotonic() - asked_at
        if self.interrupted():
            return None
        with timed("codec"):
            replies = self.read_replies(server_round, arrived)
        with timed("generator"):
            self.trainer.set_learning_rate(server_round / last_round)
            enough = len(replies.values) >= self.config.cohort.min_replies
            step = self.step_generator(server_round, replies) if enough else Step(taken=False)
        return self.end_round(server_round, replies, step, started, waited_seconds)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Select the cohort, count their releases on disk, build and address the requests."""
        cohort = self.cohorts.select(server_round, self.absent)
        self.user_ledgers.record(server_round, cohort, self.event)
        records = self.build_records(server_round)
        clients = {self.nodes.node_id(client_id): client_id for client_id in cohort}
        self.asked = AskedRound(clients, RoundBytes())
        for client_id in cohort:
            self.asked.bytes.sent(client_id, records)
        # A request ends with its round: a device that returns later is not charged for nothing.
        ttl = self.config.cohort.reply_timeout_seconds
        group, kind = str(server_round), self.message_type
        return [Message(records, n, kind, ttl=ttl, group_id=group) for n in clients]

    def read_replies(self, server_round: int, messages: Iterable[Message]) -> Replies:
        """Check, count and decode what arrived."""
        return read_replies(
            messages,
            self.asked.clients,
            lambda records: self.decode(records, server_round),
            self.asked.bytes,
            server_round,
        )

    def end_round(
        self, server_round: int, replies: Replies, step: Step, started: float, waited_seconds: float
    ) -> RoundReport:
        """Add up the bytes of the round and report it."""
        asked = self.asked
        self.byte_meter.add(asked.bytes)
        return RoundReport(
            server_round=server_round,
            asked=len(asked.clients),
            received=len(replies.values),
            failed=replies.failed,
            malformed=replies.malformed,
            missing=len(asked.clients) - replies.arrived,
            stepped=step.taken,
            downlink_bytes=sum(asked.bytes.downlink.values()),
            uplink_bytes=sum(asked.bytes.uplink.values()),
            bytes_by_client=asked.bytes.by_client(),
            epsilon_server_bound=self.user_ledgers.max_epsilon(),
            combined_gradient_norm=step.combined_norm,
            generator_gradient_norm=step.generator_gradient_norm,
            round_seconds=time.monotonic() - started,
            waited_seconds=waited_seconds,
        )

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run from ``first_round`` to ``num_rounds``, reporting each, and return the EMA generator.

        Raises:
            RunStalled: round after round, too few clients answer; what is done stays saved.

        Ends early, saying so, when interrupted or when nobody's budget allows another release.
        ``initial_arrays`` replaces the generator's weights; the other arguments are Flower's and
        are not used: settings are in the config, evaluation is the caller's.
        """
        if initial_arrays is not None:
            for network in (self.trainer.generator, self.trainer.ema_generator):
                network.load_state_dict(initial_arrays.to_torch_state_dict())
        rounds_without_step = 0
        for server_round in range(self.first_round, num_rounds + 1):
            if self.interrupted():
                break
            if self.cohorts.everybody_is_exhausted():
                logger.warning(
                    "stopped before round %d: another release would take every user past "
                    "max-epsilon=%g or max-participations=%d", server_round,
                    self.config.budget.max_epsilon, self.config.budget.max_participations,
                )  # fmt: skip
                break
            report = self.train_round(grid, server_round, num_rounds)
            if report is None:
                break
            self.on_round(report)
            if report.asked:
                rounds_without_step = 0 if report.stepped else rounds_without_step + 1
            if rounds_without_step == PATIENCE_ROUNDS:
                raise RunStalled(
                    f"no generator step in the last {PATIENCE_ROUNDS} rounds: of {report.asked} "
                    f"clients {report.received} answered, min-replies="
                    f"{self.config.cohort.min_replies}; the log says why the others did not"
                )
        return Result(arrays=ArrayRecord(self.trainer.ema_generator.state_dict()))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse: there is one way from replies to a step, ``train_round``."""
        raise NotImplementedError("replies are read and stepped on by train_round alone")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask no client to evaluate: its answer would be a release nobody accounted for."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing; see ``configure_evaluate``."""
        return None
