"""The server's own view: whom it asked for what. An upper bound on what devices reserved."""

import math
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent, compose
from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_mu
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy_config import BudgetConfig


class UserLedgers:
    """Counts a release for everyone who is asked, on disk before the asking.

    A request that is asked again after a crash counts again, because a device may have had to
    charge it again. What other runs asked of the same people is not in it.

    Raises:
        LedgerUnavailable: the file is missing or was edited.
    """

    def __init__(self, path: Path, budget: BudgetConfig) -> None:
        self._file = LedgerFile(path)
        self._file.drop_incomplete_line()  # a crash while recording: nobody had been asked yet
        self._relation = NeighboringRelation(budget.neighboring_relation)
        self._delta = budget.delta
        self._max_mu = gaussian_mu(budget.max_epsilon, budget.delta)
        self._max_participations = budget.max_participations or math.inf
        self._times: dict[SanitizedGradientEvent, Counter[str]] = defaultdict(Counter)
        self._most_mu, self._most_participations = 0.0, 0
        with self._file.locked() as file:
            for entry in file.entries:
                self._count(entry["clients"], SanitizedGradientEvent(**entry["event"]))

    @staticmethod
    def create(path: Path) -> None:
        """Create an empty count, once a run."""
        LedgerFile.create(path, {"view": "server"})

    def record(
        self, server_round: int, client_ids: list[str], event: SanitizedGradientEvent
    ) -> None:
        """Charge everyone who is about to be asked, whether or not they will answer."""
        with self._file.locked() as file:
            entry = {"round": server_round, "clients": client_ids, "event": asdict(event)}
            file.append([entry])
        self._count(client_ids, event)

    def would_exceed(self, client_id: str, event: SanitizedGradientEvent) -> bool:
        """Tell whether one more such release would pass a limit for this client's users."""
        wanted = self._releases_of(client_id) + Counter([event])
        too_many = wanted.total() > self._max_participations
        return too_many or compose(wanted, self._relation) > self._max_mu

    def max_mu(self) -> float:
        """Return mu of the user who was asked most; 0 before anybody was."""
        return self._most_mu

    def max_epsilon(self) -> float:
        """Return epsilon of the user who was asked most; 0 before anybody was."""
        return gaussian_epsilon(self.max_mu(), self._delta)

    def max_participations(self) -> int:
        """Return how often the client who was asked most was asked."""
        return self._most_participations

    def _count(self, client_ids: list[str], event: SanitizedGradientEvent) -> None:
        """Add a release; what a user spent only grows, so the most is known without a search."""
        for client_id in client_ids:
            self._times[event][client_id] += 1
            releases = self._releases_of(client_id)
            self._most_mu = max(self._most_mu, compose(releases, self._relation))
            self._most_participations = max(self._most_participations, releases.total())

    def _releases_of(self, client_id: str) -> Counter[SanitizedGradientEvent]:
        found = {event: times[client_id] for event, times in self._times.items()}
        return +Counter(found)
