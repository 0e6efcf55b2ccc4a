"""Flower Strategy of every algorithm: select, charge, request, collect, combine, step, report.

Under local and central trust Flower's own ``Strategy.start`` runs it too. ``start`` here adds
resuming, interruption, exhausted budgets, stalled runs and a last fit.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fed_gswgan.algorithms.base import Mean, Metrics, Query, Server, Step
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.noise import named_noise_source
from fed_gswgan.reporting.round_log import RoundReport
from fed_gswgan.secure_aggregation.protocol import Phase, bytes_beside_payload
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.message_types import CLIENTS, RECORD, REQUESTS, TRAIN
from fed_gswgan.wire.messages import Request, release_bytes
from server.client_registry import ClientRegistry, RunStalled
from server.cohort import ServerLedger, select_cohort
from server.collect import (
    Collected,
    exchange,
    looks_like_noise_alone,
    mean_of,
    modulus_bits_for,
)
from server.secure_sum import SecureSum

logger = logging.getLogger(__name__)

PATIENCE_ROUNDS = 5
FAILED_ROUNDS = 3  # in a row, in which clients answered and none with anything of its data
LARGEST_REPLY_BYTES = 32 * 2**20  # of one node, unless a single release is larger


@dataclass
class Round:
    """The round in progress."""

    number: int
    query: Query
    blob: bytes
    collected: Collected
    population: int
    left_out: int
    started: float
    asked_at: float


@dataclass
class FederatedStrategy(Strategy):
    """The rounds of one run.

    Attributes:
        config: of the run, its noise known.
        spec: of the data set.
        experiment_id: part of every release's key; a resumed run keeps it.
        server: server half of the algorithm.
        registry: the population, and each client's node.
        ledger: the server's own count of releases.
        first_round: 1, or the one after the checkpoint.
        checkpoint_round: returns the newest round that the server could fall back to.
        on_round: gets every round's report.
        interrupted: True once the run shall end.
        stopped: why the run ended before its last round; empty: it did not.
        finished: whether the algorithm has finished, and no round came after.
        noise_alone: returns how many answers of a round, by experiment and number, were noise
            alone; None: clients are devices, which do not tell.
    """

    config: Config
    spec: DataSpec
    experiment_id: str
    server: Server
    registry: ClientRegistry
    ledger: ServerLedger
    first_round: int = 1
    checkpoint_round: Callable[[], int] = lambda: 0
    on_round: Callable[[RoundReport], None] = lambda report: None
    interrupted: Callable[[], bool] = lambda: False
    stopped: str = ""
    finished: bool = False
    noise_alone: Callable[[str, int], int] | None = None
    _failed_rounds: int = field(default=0, init=False)
    _silent_rounds: int = field(default=0, init=False)
    _round: Round | None = field(default=None, init=False)
    _own_loop: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.seeds = SeedStream(self.config.shared.seed)
        self.event = self.config.event(self.spec)
        self._request(self.first_round, Query())  # settings that do not go together: before work

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Select the cohort, charge it on disk, and return a message for each of its nodes.

        Under the protocol of secure aggregation there is none: its phases need their answers.
        """
        shared = self.config.shared
        if shared.trust == "secure-aggregation" and not self._own_loop:
            raise ValueError(
                "trust=secure-aggregation needs FederatedStrategy.start: Flower's own loop cannot "
                "run it"
            )
        current = self._begin(server_round)
        if current is None or shared.masked:
            return []
        collected = current.collected
        asked = dict.fromkeys(collected.cohort, current.blob)
        return self._messages(collected, str(server_round), asked)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sum the releases as they arrive, let the algorithm take its step, and report."""
        step = self._aggregate(server_round, replies)
        return None, MetricRecord(dict(step.metrics)) if step else None

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
        """Run from ``first_round`` to ``num_rounds``; ``finish`` comes after.

        Ends early, with a line in the log, when interrupted, when no budget allows another release,
        or when the algorithm has a reason to stop. Of the arguments only ``grid`` and
        ``num_rounds`` are used: settings are in the config, evaluation is the caller's.

        Raises:
            RunStalled: round after round, too few clients answer, or all that answer fail; what is
                done stays saved.
        """
        self._own_loop = True
        rounds_without_step = 0
        for server_round in range(self.first_round, num_rounds + 1):
            if self.interrupted() or self.stopped or self._exhausted(server_round):
                break
            messages = self.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
            if self.interrupted():
                break
            asked = self._round is not None and len(self._round.collected.cohort) > 0
            if self.config.shared.masked:
                self._sum_under_masks(grid)
            replies = self._exchange(grid, messages)
            step = self._aggregate(server_round, replies)
            if self.interrupted():
                break
            if self._failed_rounds == min(FAILED_ROUNDS, num_rounds):
                raise RunStalled(
                    f"in the last {self._failed_rounds} rounds every client that answered failed, "
                    "so that nothing was learned while each that was asked is charged; see why in "
                    "run.log and, in a simulation, in clients/*/failures.log, mend that, and resume"
                )
            if asked:
                rounds_without_step = 0 if step else rounds_without_step + 1
            if rounds_without_step == PATIENCE_ROUNDS:
                raise RunStalled(
                    f"no step in the last {PATIENCE_ROUNDS} rounds: too few clients answered; the "
                    "log says why the others did not"
                )
            if step and step.stop:
                logger.info("stopped after round %d: %s", server_round, step.stop)
                self.stopped = step.stop
        return Result()

    def finish(self) -> Metrics:
        """Let the algorithm finish, once after the last round."""
        if self.finished:
            return {}
        self.finished = True
        return self.server.finish()

    def summary(self) -> None:
        """Log what decides privacy."""
        shared, event = self.config.shared, self.event
        logger.info(
            "%s: %d clients, cohort %d (%s), %d x %d numbers a release, clipping %s to %g, "
            "noise-stddev %.6g%s, trust %s",
            shared.algorithm, len(self.registry), shared.cohort_size, shared.sampling_method,
            event.rows, event.numbers, event.bounded, event.clipping_bound, shared.noise_stddev,
            f" (a share of {event.noise_stddev:.6g})" if event.honest > 1 else "", event.trust,
        )  # fmt: skip

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask no client to evaluate: its answer would be a release without an account."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing; see ``configure_evaluate``."""
        return None

    def _begin(self, server_round: int) -> Round | None:
        """Select the cohort and charge it on disk; None: interrupted before."""
        shared, started = self.config.shared, time.monotonic()
        absent = self.registry.absent(shared.min_replies, shared.reply_timeout_seconds)
        if absent is None:
            return None
        query = self.server.request(server_round)
        request = self._request(server_round, query)
        self.event = request.event
        drawn = select_cohort(self.registry, server_round, shared, self.seeds, absent)
        cohort = [client for client in drawn if not self.ledger.would_exceed(client, self.event)]
        if len(cohort) < request.event.honest + (shared.colluding if shared.masked else 0):
            cohort = []  # too few for the promised noise: none is asked
        blob = request.encode()
        sent = Request.decode(blob)  # as a client sees it: samples are rounded to their levels
        self.ledger.record(cohort, sent.key, sent.event)
        self._round = Round(
            number=server_round,
            query=query,
            blob=blob,
            collected=Collected(sent, cohort),
            population=len(self.registry),
            left_out=len(absent) + len(drawn) - len(cohort),
            started=started,
            asked_at=time.monotonic(),
        )
        return self._round

    def _messages(
        self, collected: Collected, group: str, blobs: Mapping[str, bytes]
    ) -> list[Message]:
        """Return a message for each node that is asked, and note what each client is sent."""
        nodes = self._by_node(group, list(blobs), collected)
        collected.ask(nodes, blobs)
        # A request ends with its round: a device that returns later is not charged for nothing.
        ttl = self.config.shared.reply_timeout_seconds
        messages = []
        for (node_id, word), clients in nodes.items():
            asked = [blobs[client] for client in clients]
            if all(blob is asked[0] for blob in asked):
                asked = asked[:1]
            content = ConfigRecord({REQUESTS: asked, CLIENTS: list(clients)})
            message = Message(RecordDict({RECORD: content}), node_id, TRAIN, ttl=ttl, group_id=word)
            messages.append(message)
        return messages

    def _request(self, server_round: int, query: Query) -> Request:
        """Return the round's request; ValueError if its bits do not suit its event."""
        shared = self.config.shared
        request = Request(
            experiment_id=self.experiment_id,
            server_round=server_round,
            oldest_round=self.checkpoint_round() + 1,
            algorithm=shared.algorithm,
            event=self.config.event(self.spec, server_round),
            tensors=query.tensors,
            scalars=query.scalars,
            uplink_bits=shared.uplink_bits,
            modulus_bits=0,
            unit_range=query.unit_range,
            downlink_bits=shared.downlink_bits,
        )
        if shared.trust == "secure-aggregation":
            bits = modulus_bits_for(request, shared.cohort_size)
            if bits > 31:
                raise ValueError(
                    f"noise-stddev={shared.noise_stddev:g} is too small for a sum of "
                    f"cohort-size={shared.cohort_size} releases in 31 bits; use more noise"
                )
            request = replace(request, modulus_bits=bits)
        release_bytes(request)
        return request

    def _exchange(self, grid: Grid, messages: Sequence[Message]) -> Iterable[Message]:
        return exchange(grid, messages, self.config.shared.reply_timeout_seconds, self.interrupted)

    def _sum_under_masks(self, grid: Grid) -> None:
        """Let the protocol of secure aggregation form the round's sum."""
        if self._round is None or not self._round.collected.cohort:
            return
        number, blob, collected = self._round.number, self._round.blob, self._round.collected

        def send(phase: Phase, blobs: Mapping[str, bytes]) -> Iterable[Message]:
            return self._exchange(grid, self._messages(collected, f"{number}.{phase}", blobs))

        keys = {client: self.registry.key(client) for client in collected.cohort}
        SecureSum(collected, blob, keys, self.config.shared.colluding, send).run()

    def _by_node(
        self, group: str, clients: list[str], collected: Collected
    ) -> dict[tuple[int, str], list[str]]:
        """Return clients by node and message group, so that no message or reply is too large."""
        largest = release_bytes(collected.request)
        if self.config.shared.masked:
            largest += bytes_beside_payload(len(collected.cohort))
        most = max(1, LARGEST_REPLY_BYTES // largest)
        nodes: dict[int, list[str]] = {}
        for client_id in clients:
            nodes.setdefault(self.registry.node_id(client_id), []).append(client_id)
        return {
            (node_id, f"{group}/{first}"): of_node[first : first + most]
            for node_id, of_node in nodes.items()
            for first in range(0, len(of_node), most)
        }

    def _aggregate(self, server_round: int, replies: Iterable[Message]) -> Step | None:
        current = self._round
        if current is None or current.number != server_round:
            return None
        collected, shared = current.collected, self.config.shared
        collected.add(replies)
        waited_seconds = time.monotonic() - current.asked_at
        if self.interrupted():
            return None
        mean = None
        if collected.received >= shared.min_replies:
            noise = self.seeds.generator("noise", server_round)
            mean = mean_of(
                collected,
                shared.cohort_size,
                lambda: named_noise_source(shared.noise_source, noise),
            )
        step = self.server.step(server_round, current.query, mean) if mean else None
        self._round, self.finished = None, False
        report = self._report(current, step, waited_seconds)
        failed = report.missing < report.asked and report.informed == 0
        self._failed_rounds = self._failed_rounds + 1 if failed else 0
        if mean and self.noise_alone is None:
            self._watch_for_noise_alone(server_round, collected.request.event, mean)
        self.on_round(report)
        return step

    def _watch_for_noise_alone(self, server_round: int, event: Event, mean: Mean) -> None:
        """Warn where three means in a row look like noise alone, though a signal would show.

        A device hides that it failed, since that can depend on its data, so the server has the
        public law of the noise only. A mean that looks like noise proves nothing: images may be
        close to what was asked about, or the noise may hide them. So this is a line in the log and
        never ends a run, and it is silent where the noise would hide a tenth of the most that
        clients can send.
        """
        silent = looks_like_noise_alone(event, mean)
        self._silent_rounds = self._silent_rounds + 1 if silent else 0
        if self._silent_rounds == FAILED_ROUNDS:
            self._silent_rounds = 0
            logger.warning(
                "round %d: the last %d sums look like noise alone, as they do where computing "
                "fails on every device; owners find out why with fed-gswgan device check",
                server_round, FAILED_ROUNDS,
            )  # fmt: skip

    def _report(self, current: Round, step: Step | None, waited_seconds: float) -> RoundReport:
        collected = current.collected
        down, up = collected.downlink, collected.uplink
        return RoundReport(
            server_round=current.number,
            asked=len(collected.cohort),
            population=current.population,
            left_out=current.left_out,
            received=collected.received,
            failed=collected.failed,
            malformed=collected.malformed,
            missing=collected.missing,
            noise_alone=self.noise_alone and self.noise_alone(self.experiment_id, current.number),
            stepped=step is not None,
            stop=step.stop if step else "",
            downlink_bytes=down.total(),
            uplink_bytes=up.total(),
            bytes_by_client={client: [down[client], up[client]] for client in collected.cohort},
            epsilon_server_bound=self.ledger.max_epsilon,
            metrics=dict(step.metrics) if step else {},
            round_seconds=time.monotonic() - current.started,
            waited_seconds=waited_seconds,
        )

    def _exhausted(self, server_round: int) -> bool:
        if not self.ledger.all_exhausted(self.registry, self.event):
            return False
        shared = self.config.shared
        self.stopped = (
            "another release would take every user past "
            f"max-epsilon={shared.max_epsilon:g} or max-participations={shared.max_participations}"
        )
        logger.warning("stopped before round %d: %s", server_round, self.stopped)
        return True
