"""One round that a reader recomputes on paper, under both loops; and how a run ends."""

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from client import shard
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.data.registry import open_source
from fed_gswgan.device import guard
from fed_gswgan.device.shards import SIMULATION_FOLDER, SimulatedClients, shard_of
from fed_gswgan.privacy.noise import NoiseSource
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.seeding import SeedStream
from fed_gswgan.wire.messages import Request
from server import strategy as strategy_module
from server.client_registry import ClientRegistry, RunStalled
from server.cohort import ServerLedger
from server.strategy import FederatedStrategy
from simulations.in_process import InProcessGrid
from tests.plug_ins import Ratio

SMALL = {
    "dataset": "tests.plug_ins:Colours", "algorithm": "tests.plug_ins:Ratio", "cohort-size": 3,
    "rounds": 1, "noise-stddev": 1.0, "clipping-bound": 1.0, "neighboring-relation": "zero-out",
    "noise-source": "seeded", "reply-timeout-seconds": 5.0, "honest-share": 1.0,
}  # fmt: skip
SHARDS = 2


class KnownNoise(NoiseSource):
    """Adds 0.3, -0.1 and 0.25 standard deviations to three numbers."""

    def draw(self, values, stddev, step):
        noise = stddev * np.array([0.3, -0.1, 0.25])
        return np.rint((values + noise) / step).astype(np.int64)


class Federation:
    """Three clients in two shards, their server, and the reports of its rounds."""

    def __init__(self, folder, **changed):
        table = SMALL | {key.replace("_", "-"): value for key, value in changed.items()}
        config = Config.from_table(table)
        source = open_source(config.shared)
        spec = spec_of(source)
        self.clients = SimulatedClients(folder, partitions_of(source, config.shared), SHARDS)
        self.clients.create()
        self.grid = InProcessGrid(SHARDS, config.to_table())
        registry = ClientRegistry(self.grid, self.clients)
        registry.register(SHARDS, 5.0)
        ServerLedger.create(folder / "server")
        self.reports, self.interrupted = [], False
        self.server = Ratio.Server(config.own, spec, SeedStream(0), config.shared.rounds)
        self.strategy = FederatedStrategy(
            config=config, spec=spec, experiment_id="e", server=self.server, registry=registry,
            ledger=ServerLedger(folder / "server", config.shared),
            on_round=self.reports.append, interrupted=lambda: self.interrupted,
        )  # fmt: skip

    def start(self, rounds=1):
        self.strategy.start(self.grid, num_rounds=rounds)

    @property
    def spent(self):
        return self.clients.spent(self.strategy.config.shared)


@pytest.fixture
def federation(tmp_path, monkeypatch):
    """Return a function that makes a federation; its noise is known, and so no guard tests it."""
    monkeypatch.setenv(SIMULATION_FOLDER, str(tmp_path / "clients"))
    monkeypatch.setattr(guard, "selftest", lambda noise: None)
    for module in (shard, strategy_module):
        monkeypatch.setattr(module, "named_noise_source", lambda name, randomness: KnownNoise())
    return lambda **changed: Federation(tmp_path / "clients", **changed)


LOOPS = {
    "own": lambda f: f.start(),
    "Flower's": lambda f: Strategy.start(f.strategy, f.grid, ArrayRecord(), num_rounds=1),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("trust", ["local", "central", "secure-aggregation"])
def test_a_whole_round_is_as_on_paper(federation, trust, loop):
    """Every number of a round of three clients who have two numbers and a weight each.

    ======  ===============  ==================  ===================================
    client  has              clipped to norm 1   adds under local trust
    ======  ===============  ==================  ===================================
    ann     (3, 4, 0)        (0.6, 0.8, 0)       (0.3, -0.1, 0.25), as each of them
    bob     (0, 0, 1)        (0, 0, 1)
    cy      (.5, .5, .5)     (.5, .5, .5)
    sum                      (1.1, 1.3, 1.5)
    ======  ===============  ==================  ===================================

    Local: the mean is (1.1, 1.3, 1.5) / 3 + (0.3, -0.1, 0.25) = (2/3, 1/3, 3/4), and the ratio to
    the weight (8/9, 4/9). Its noise has deviation 1 / sqrt(3).

    Secure aggregation: each client adds a share of noise, 1 / sqrt(3) of that, and rounds to the
    public grid, here of step 1/4: ann's (0.77, 0.74, 0.14) to (3, 3, 1) steps, bob's (0.17, -0.06,
    1.14) to (1, 0, 5), cy's (0.67, 0.44, 0.64) to (3, 2, 3). The sum is (7, 5, 9) steps, the ratio
    (7/9, 5/9), and the noise of the mean has deviation 1/3.

    Central: the noise is added once, to the sum: (1.4, 1.2, 1.75) / 3, of deviation 1/3.

    Under each a user's mu is sensitivity / noise = 1 / 1 (the zero-out relation).
    """
    run = federation(trust=trust)
    if trust == "secure-aggregation" and loop != "own":
        with pytest.raises(ValueError, match="trust=secure-aggregation needs FederatedStrategy"):
            LOOPS[loop](run)
        assert run.spent.participations_max == 0
        return
    LOOPS[loop](run)
    ratio, deviation = {
        "local": ([8 / 9, 4 / 9], 1 / math.sqrt(3)),
        "secure-aggregation": ([7 / 9, 5 / 9], 1 / 3),
        "central": ([1.4 / 1.75, 1.2 / 1.75], 1 / 3),
    }[trust]
    assert run.server.ratio == pytest.approx(ratio, abs=2e-3)  # the other grids are of 2^-11, 2^-20
    (report,) = run.reports
    assert report.metrics["noise"] == pytest.approx(deviation)
    assert (report.asked, report.received, report.stepped) == (3, 3, True)
    assert (report.failed, report.malformed, report.missing) == (0, 0, 0)
    # A byte that says "release", then three numbers: int32, or 12 bits of a sum's modulus.
    width = run.strategy._request(1, run.server.request(1)).modulus_bits or 32
    one = 1 + math.ceil(3 * width / 8)
    assert report.uplink_bytes == 3 * one
    assert report.bytes_by_client.keys() == {"client-00000", "client-00001", "client-00002"}
    assert {uplink for _, uplink in report.bytes_by_client.values()} == {one}
    # mu = 1: delta = Phi(-e + 1/2) - exp(e) Phi(-e - 1/2) is 1e-5 at e = 4.377...
    spent, normal = run.spent, NormalDist()
    assert (spent.users, spent.participations_max) == (3, 1)
    assert spent.mu_max == pytest.approx(1)
    epsilon = spent.epsilon_max
    delta = normal.cdf(-epsilon + 0.5) - math.exp(epsilon) * normal.cdf(-epsilon - 0.5)
    assert delta == pytest.approx(1e-5, rel=1e-6)
    assert report.epsilon_server_bound == pytest.approx(epsilon)


def test_a_round_s_request_names_each_client_once_at_its_node(federation):
    run = federation()
    messages = run.strategy.configure_train(1, ArrayRecord(), None, run.grid)
    asked = []
    for message in messages:
        content = message.content["fed-gswgan"]
        (blob,) = content["requests"]
        request = Request.decode(blob)
        assert (request.server_round, request.experiment_id) == (1, "e")
        assert request.scalars == {"scale": 4.0}
        assert message.metadata.ttl == 5.0, "a request ends with its round"
        for client in content["clients"]:
            assert message.metadata.dst_node_id == 2 + shard_of(client, SHARDS)
        asked += content["clients"]
    assert sorted(asked) == ["client-00000", "client-00001", "client-00002"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy_module, "LARGEST_REPLY_BYTES", 20)  # a release has 13
        assert len(run.strategy.configure_train(2, ArrayRecord(), None, run.grid)) == 3


def test_a_late_reply_of_another_round_changes_nothing(federation):
    run = federation()
    run.strategy.configure_train(2, ArrayRecord(), None, run.grid)
    assert run.strategy.aggregate_train(1, []) == (None, None)
    assert not run.reports


def test_too_few_replies_make_no_step(federation, monkeypatch):
    run = federation(min_replies=3, rounds=3)
    collected_add = strategy_module.Collected.add

    def losing_one(self, replies):
        collected_add(self, list(replies)[self.request.server_round == 2 :])

    monkeypatch.setattr(strategy_module.Collected, "add", losing_one)
    run.start(rounds=3)
    assert [report.stepped for report in run.reports] == [True, False, True]
    assert run.reports[1].missing > 0
    assert run.server.steps == 2


def test_round_after_round_without_a_step_ends_the_run(federation, monkeypatch):
    run = federation(rounds=20)
    monkeypatch.setattr(strategy_module.Collected, "add", lambda self, replies: None)
    with pytest.raises(RunStalled, match="no step in the last 5 rounds"):
        run.start(rounds=20)
    assert len(run.reports) == 5


def failing(self, request, client):
    raise RuntimeError("a fact about the data")


@pytest.mark.parametrize(("rounds", "ended_after"), [(9, 3), (1, 1)])
def test_rounds_in_which_all_clients_answer_with_noise_alone_end_the_run(
    small_run, monkeypatch, tmp_path, rounds, ended_after
):
    monkeypatch.setattr(Ratio.Client, "update", failing)
    said = f"in the last {ended_after} rounds every client that answered failed"
    with pytest.raises(RunStalled, match=said):
        small_run(**PLUGGED_IN, rounds=rounds)
    lines = read_rounds(tmp_path / "run")
    assert [(line["received"], line["noise_alone"]) for line in lines] == [(3, 3)] * ended_after
    log = (tmp_path / "run" / "run.log").read_text()
    assert f"round 1/{rounds}: 3 of 3 replies (3 noise alone)" in log
    assert not (tmp_path / "run" / "summary.json").exists()


def test_one_client_with_data_is_enough_to_go_on(small_run, monkeypatch):
    update = Ratio.Client.update
    monkeypatch.setattr(
        Ratio.Client, "update",
        lambda self, request, client: (update if "0" in client.client_id[-1] else failing)(
            self, request, client
        ),
    )  # fmt: skip
    lines = read_rounds(small_run(**PLUGGED_IN, rounds=4))
    assert [line["noise_alone"] for line in lines] == [2] * 4


def test_rounds_in_which_every_node_fails_end_the_run(federation, monkeypatch):
    run = federation(rounds=9)
    monkeypatch.setattr(shard, "answer", failing)
    with pytest.raises(RunStalled, match="in the last 3 rounds every client that answered failed"):
        run.start(rounds=9)
    assert [(report.failed, report.informed) for report in run.reports] == [(3, 0)] * 3


def test_sums_of_devices_that_look_like_noise_are_a_warning_and_no_end(federation, caplog):
    """Images of nothing: what three sums look like where computing fails on every device."""
    run = federation(rounds=4, noise_stddev=0.01, cohort_size=3)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING", logger="server"):
        patch.setattr(strategy_module, "looks_like_noise_alone", lambda event, mean: True)
        run.start(rounds=4)
    assert len(run.reports) == 4
    assert caplog.text.count("the last 3 sums look like noise alone") == 1


@pytest.mark.parametrize("limit", [{"max_participations": 2}, {"max_epsilon": 6.7}])
def test_a_spent_budget_ends_the_run_before_anybody_is_asked(federation, limit, caplog):
    """mu of two rounds is sqrt(2), epsilon 6.6; of three it would be 8.4."""
    run = federation(rounds=9, **limit)
    with caplog.at_level("WARNING", logger="server.strategy"):
        run.start(rounds=9)
    assert [report.server_round for report in run.reports] == [1, 2]
    assert run.spent.participations_max == 2
    assert run.strategy.ledger.max_epsilon == pytest.approx(run.spent.epsilon_max)
    assert "stopped before round 3: another release would take every user past" in caplog.text


def test_under_secure_aggregation_fewer_than_the_honest_are_not_asked(federation):
    """One of the three has no budget left: the sum of two would have too little noise."""
    run = federation(trust="secure-aggregation", max_participations=1)
    event = run.strategy.event
    other = Request(
        experiment_id="other", server_round=1, algorithm="a", event=event, modulus_bits=8
    )
    run.strategy.ledger.record(["client-00001"], other.key, event)
    run.start()
    (report,) = run.reports
    assert (report.asked, report.stepped) == (0, False)
    assert run.spent.participations_max == 0


def test_an_interrupt_ends_the_round_and_is_no_step(federation):
    run = federation(rounds=5)
    step = run.server.step

    def stepping(server_round, query, mean):
        run.interrupted = server_round == 2
        return step(server_round, query, mean)

    run.server.step = stepping
    run.start(rounds=5)
    assert [report.server_round for report in run.reports] == [1, 2], "the step at hand is kept"
    run.start(rounds=5)
    assert len(run.reports) == 2, "nothing is asked"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"uplink_bits": 8, "trust": "central"}, "uplink-bits=8 must be 32 under trust=central"),
        ({"uplink_bits": 8, "trust": "secure-aggregation"}, "uplink-bits=8 must be 32"),
        ({"uplink_bits": 4, "noise_stddev": 0.5}, "uplink-bits=4 needs noise-stddev >= 1"),
        ({"trust": "secure-aggregation", "noise_stddev": 1e-8}, "too small"),
    ],
)
def test_what_no_round_could_send_is_refused_before_the_first(federation, table, said):
    with pytest.raises(ValueError, match=said):
        federation(**table)


PLUGGED_IN = {"dataset": SMALL["dataset"], "algorithm": SMALL["algorithm"], "classes": "all"}


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_an_algorithm_may_end_the_run_and_finishes(small_run):
    settings = {**PLUGGED_IN, "algorithm_settings": "last-round = 2", "rounds": 6}
    folder = small_run(**settings)
    assert [line["server_round"] for line in read_rounds(folder)] == [1, 2]
    assert "stopped after round 2: close enough" in (folder / "run.log").read_text()
    summary = summary_of(folder)
    assert (summary["rounds"], summary["finish"]["steps"]) == (2, 2)
    small_run(**settings, resume=True)
    assert summary_of(folder)["rounds"] == 2, "its reason to stop is remembered"


def test_a_finished_run_that_is_lengthened_finishes_again(small_run):
    for rounds, resume in ((2, False), (4, True)):
        folder = small_run(**PLUGGED_IN, rounds=rounds, resume=resume)
        assert summary_of(folder)["finish"]["steps"] == rounds


def test_it_finishes_after_a_last_round_without_a_step(small_run, monkeypatch):
    collected_add = strategy_module.Collected.add
    monkeypatch.setattr(
        strategy_module.Collected, "add",
        lambda self, replies: self.request.server_round < 3 and collected_add(self, replies),
    )  # fmt: skip
    folder = small_run(**PLUGGED_IN, rounds=3)
    assert [line["stepped"] for line in read_rounds(folder)] == [True, True, False]
    assert read_rounds(folder)[2]["missing"] == 3
    assert summary_of(folder)["finish"]["steps"] == 2


def test_an_interrupted_run_has_neither_finished_nor_a_summary(small_run):
    whole = small_run("whole", **PLUGGED_IN, rounds=4)
    looks = iter(range(10**6))
    cut = small_run("cut", **PLUGGED_IN, rounds=4, interrupted=lambda: next(looks) > 9)
    assert 0 < len(read_rounds(cut)) < 4
    assert not (cut / "summary.json").exists()
    small_run("cut", **PLUGGED_IN, rounds=4, resume=True)
    assert summary_of(cut)["finish"] == summary_of(whole)["finish"]
