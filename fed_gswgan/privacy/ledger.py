"""The device's ledger: asked before data is touched, written before a reply leaves."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_gswgan.config import BudgetConfig
from fed_gswgan.privacy.accountant import compose
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_mu
from fed_gswgan.privacy.ledger_file import LedgerFile, LedgerUnavailable, PrivacyBudgetExhausted
from fed_gswgan.privacy.neighboring import NeighboringRelation


@dataclass(frozen=True)
class ReleaseKey:
    """What makes a release the same release when it is asked for again.

    Attributes:
        experiment_id: of the experiment; a resumed run keeps it.
        server_round: from 1.
        request_hash: of everything the server asked.
    """

    experiment_id: str
    server_round: int
    request_hash: str


class Ledger:
    """Every private release about the users of one client, and the right to refuse the next."""

    def __init__(self, path: Path, users: tuple[str, ...], budget: BudgetConfig) -> None:
        self._file = LedgerFile(path)
        self._users = users
        self._relation = NeighboringRelation(budget.neighboring_relation)
        self._budget = budget
        self._max_mu = gaussian_mu(budget.max_epsilon, budget.delta)
        self._releases: dict[str, Counter[SanitizedGradientEvent]] = {}
        self._folded_entries = 0

    @staticmethod
    def create(path: Path, users: tuple[str, ...]) -> None:
        """Create the ledger of these users; raises FileExistsError if there is one already."""
        LedgerFile.create(path, {"users": list(users)})

    def reserve(self, key: ReleaseKey, event: SanitizedGradientEvent) -> None:
        """Charge every user of the ledger for one release, durably, or refuse.

        A repeat is charged again: it is the guard that answers one from the bytes it kept.
        Returns once the reservation is on disk. Whatever happens afterwards, it stays spent: a
        refund that depends on what happened to the data would itself leak.

        Raises:
            PrivacyBudgetExhausted: some user would pass ``max-epsilon``; nothing is written.
            LedgerUnavailable: the ledger cannot be read or written.
        """
        with self._file.locked() as file:
            self._fold()
            for user in self._users:
                self._refuse_if_exhausted(user, event)
            line = {"kind": "reserve", **asdict(key), "event": asdict(event)}
            file.append([{**line, "user": user} for user in self._users])
            self._fold()

    def releases(self) -> dict[str, Counter[SanitizedGradientEvent]]:
        """Return every user's releases so far, users without any included."""
        with self._file.locked():
            self._fold()
            return {user: releases.copy() for user, releases in self._releases.items()}

    def _fold(self) -> None:
        """Bring the counts in memory up to what the file holds."""
        if not self._users or self._file.header.get("users") != list(self._users):
            raise LedgerUnavailable(
                f"ledger {self._file.path.name} is of users {self._file.header.get('users')}, the "
                f"data is of {list(self._users)}: somebody would not be charged; keep one folder "
                "for one way of dealing writers to clients"
            )
        try:
            for user in self._users:
                self._releases.setdefault(user, Counter())
            for entry in self._file.entries[self._folded_entries :]:
                self._releases[entry["user"]][SanitizedGradientEvent(**entry["event"])] += 1
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerUnavailable(
                f"ledger {self._file.path.name}: an entry is not one of this ledger's ({error}); "
                "it counts as exhausted"
            ) from error
        self._folded_entries = len(self._file.entries)

    def _refuse_if_exhausted(self, user: str, event: SanitizedGradientEvent) -> None:
        spent = compose(self._releases[user], self._relation)
        wanted = compose(self._releases[user] + Counter([event]), self._relation)
        if wanted > self._max_mu:
            budget = self._budget
            raise PrivacyBudgetExhausted(
                f"max-epsilon={budget.max_epsilon:g} would be passed: spent "
                f"{gaussian_epsilon(spent, budget.delta):.4g}, with this release "
                f"{gaussian_epsilon(wanted, budget.delta):.4g}, at delta={budget.delta:g} under "
                f"{self._relation}; this user answers no more"
            )
