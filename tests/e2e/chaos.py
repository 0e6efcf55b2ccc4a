"""Kills processes of a federation on loopback, again and again, and looks what became of it.

Usage: python -m tests.e2e.chaos --output DIR --kills 200 --seed 0

Once or twice between two finished rounds one process, drawn from the seed, gets SIGKILL: the
SuperLink, the ServerApp, a SuperNode, a client app in the middle of a reply, or a guard. What ended
is started again as ``deploy.loopback`` does it. The budget is small enough to bind: the run ends
when it is spent. It passes if the run ends, no device answered more often than its owner allows,
and no line of any ledger was lost or changed.
"""

import argparse
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.federation import Federation, Security, running
from deploy.keep_running import keep_running
from deploy.loopback import make_devices
from fed_gswgan.privacy.ledger import Ledger, Line
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import is_running
from fed_gswgan.settings import Value

logger = logging.getLogger("tests.e2e.chaos")  # also when started with -m

KINDS = ("superlink", "serverapp", "supernode", "clientapp", "guard")
# Between two kills, in the time that the last round took: the run gets on, and seldom in peace.
PAUSE_ROUNDS = (0.1, 1.4)
MOST_WITHOUT_A_ROUND = 2  # kills, then a round is waited for, however slow the machine is
SHORTEST_ROUND_SECONDS = 5.0
REPLY_TIMEOUT_SECONDS = 20.0  # a round need not wait until Flower misses a node, a minute
# Small networks and few samples, so that processes are what takes the time.
SETTINGS: dict[str, Value] = {
    "classes": "digits", "batch-size": 8, "critic": "mlp", "critic-width": 16, "critic-steps": 2,
    "generator-width": 8, "evaluation-samples": 0, "samples-every": 1000, "max-epsilon": 1e6,
    "noise-stddev": 2.14, "reply-timeout-seconds": 60.0,
}  # fmt: skip


@dataclass
class Killer:
    """Kills one process at a time; ``watch`` is called while the run goes on.

    Attributes:
        federation: whose processes are killed.
        left: kills still to come.
        draw: decides whom, and when.
        killed: how many of each kind so far.
        seen: each device's ledger as it was before the last kill.
        next_at: when the next one may be; 0 while no ServerApp is at work.
        finished: rounds.
        without_a_round: kills since the last of them.
    """

    federation: Federation
    left: int
    draw: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    seen: dict[str, list[Line]] = field(default_factory=dict)
    next_at: float = 0.0
    finished: int = 0
    without_a_round: int = 0

    def watch(self) -> None:
        """Start again what ended; kill, if a ServerApp is at work and it is time."""
        self.federation.restart_ended()
        if (finished := len(read_rounds(self.federation.run_folder))) > self.finished:
            self.finished, self.without_a_round = finished, 0
        if not is_running(self.federation.run_folder):
            self.next_at = 0.0
        elif self.next_at == 0.0:
            self.next_at = time.monotonic() + self._pause()
        elif self._may_kill() and time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + self._pause()
            kind = self.draw.choice(KINDS)
            self.check_ledgers()
            if self._kill(kind):
                self.left -= 1
                self.without_a_round += 1
                self.killed[kind] += 1
                logger.info("kill %d, after round %d: %s", self.killed.total(), finished, kind)

    def check_ledgers(self) -> None:
        """Require that each ledger goes on from where it was; AssertionError otherwise."""
        for name in self.federation.guards:
            with Ledger(self.federation.device_folder(name)) as ledger:
                now = list(ledger.lines())
            before = self.seen.get(name, [])
            if now[: len(before)] != before:
                raise AssertionError(f"{name}: its ledger lost or changed a line")
            self.seen[name] = now

    def _may_kill(self) -> bool:
        return self.left > 0 and self.without_a_round < MOST_WITHOUT_A_ROUND

    def _pause(self) -> float:
        rounds = read_rounds(self.federation.run_folder)
        last = rounds[-1]["round_seconds"] if rounds else 0.0
        return max(last, SHORTEST_ROUND_SECONDS) * self.draw.uniform(*PAUSE_ROUNDS)

    def _kill(self, kind: str) -> bool:
        """Kill one process of this kind; False if none runs now."""
        federation = self.federation
        nodes, guards = list(federation.nodes.values()), list(federation.guards.values())
        if kind in ("serverapp", "clientapp"):
            above = [federation.superlink] if kind == "serverapp" else nodes
            below = [d for program in above for d in program.descendants()]
            ids = [d.process_id for d in below if f"flwr-{kind}" in d.command]
        else:
            programs = {"superlink": [federation.superlink], "supernode": nodes, "guard": guards}
            ids = [program.process_id for program in programs[kind] if program.alive()]
        if not ids:
            return False
        os.kill(self.draw.choice(ids), signal.SIGKILL)
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return 0 if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--no-auth", action="store_true", help="TLS, but any node may connect")
    options = parser.parse_args(arguments)
    log_to(logging.StreamHandler())
    security = Security(authenticated=not options.no_auth)
    killed = chaos(options.output, options.kills, options.seed, options.nodes, security)
    logger.info("held, after %d kills: %s", killed.total(), dict(killed))
    return 0


def chaos(folder: Path, kills: int, seed: int, nodes: int, security: Security) -> Counter[str]:
    """Run to the end of the budget under so many kills and return how many of each kind there were.

    Raises:
        AssertionError: a ledger lost a line, a device answered more often than allowed, or the
            budget was spent before everything was killed.
        RunStalled: the run got no further.
    """
    participations = kills + kills // 4 + 3  # 200 kills took 123 rounds
    settings = SETTINGS | {
        "rounds": 100 * participations, "max-participations": participations,
        "max-clients": nodes, "cohort-size": nodes,
        "reply-timeout-seconds": REPLY_TIMEOUT_SECONDS,
    }  # fmt: skip
    names = [f"device-{number}" for number in range(nodes)]
    make_devices(folder / "nodes", names, settings)
    with running(folder, names, security) as federation:
        killer = Killer(federation, kills, random.Random(seed))
        keep_running(federation.submit, federation.run_folder, settings, killer.watch)
        killer.check_ledgers()
        if killer.left:
            raise AssertionError(f"the budget was spent {killer.left} kills early")
        for name, count in answered(federation).items():
            if count > participations:
                raise AssertionError(f"{name} answered {count} times, may {participations}")
    return killer.killed


def answered(federation: Federation) -> Mapping[str, int]:
    """Return how many releases each device's ledger holds, every line of it verified."""
    counts = {}
    for name in federation.guards:
        with Ledger(federation.device_folder(name)) as ledger:
            counts[name] = ledger.verify()
    return counts


if __name__ == "__main__":
    sys.exit(main())
