"""The device's ledger: asked before data is touched, written before a reply leaves."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.events import NeighboringRelation, SanitizedGradientEvent, compose
from fed_gswgan.privacy.gaussian import gaussian_epsilon, gaussian_mu
from fed_gswgan.privacy.ledger_file import LedgerFile
from fed_gswgan.privacy.policy import DevicePolicy
from fed_gswgan.privacy.refusals import (
    BudgetExhausted,
    LedgerUnavailable,
    MinSeparation,
    Replay,
    TooManyParticipations,
)


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


@dataclass
class UserReleases:
    """Every release about one user so far."""

    events: Counter[SanitizedGradientEvent] = field(default_factory=Counter)
    keys: set[ReleaseKey] = field(default_factory=set)
    last_second: float = 0.0

    def count(self, entry: dict[str, Any]) -> None:
        """Add an entry of the file; KeyError, TypeError or ValueError if it is none."""
        event = SanitizedGradientEvent(**entry["event"])
        key = ReleaseKey(entry["experiment_id"], entry["server_round"], entry["request_hash"])
        self.last_second = max(self.last_second, float(entry["unix_seconds"]))
        self.events[event] += 1
        self.keys.add(key)


class Ledger:
    """Every private release about the users of one client, and the right to refuse the next.

    Args:
        path: of the file.
        users: whose data the client holds; the ledger must be theirs.
        policy: the device's limits, each user's own over all runs and servers.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        users: tuple[str, ...],
        policy: DevicePolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = LedgerFile(path)
        self._users = users
        self._policy = policy
        self._clock = clock
        self._relation = NeighboringRelation(policy.neighboring_relation)
        self._max_mu = gaussian_mu(policy.max_epsilon, policy.delta)
        self._releases: dict[str, UserReleases] = {user: UserReleases() for user in users}
        self._folded_entries = 0

    @staticmethod
    def create(path: Path, users: tuple[str, ...], sync: bool = True) -> None:
        """Create the ledger of these users; raises FileExistsError if there is one already.

        It is on disk when this returns, or without ``sync`` when the first ``reserve`` does.
        """
        LedgerFile.create(path, {"users": list(users)}, sync)

    def reserve(self, key: ReleaseKey, event: SanitizedGradientEvent) -> None:
        """Charge every user of the ledger for one release, durably, or refuse.

        A repeat is charged again: it is the guard that answers one from the bytes it kept.
        Returns once the reservation is on disk. Whatever happens afterwards, it stays spent: a
        refund that depends on what happened to the data would itself leak.

        Raises:
            Refusal: TooManyParticipations, MinSeparation, Replay or BudgetExhausted for some user,
                LedgerUnavailable or LedgerLocked for the file; nothing is written.
        """
        with self._file.locked() as file:
            self._fold()
            now = self._clock()
            for user in self._users:
                self._refuse_too_many(self._releases[user])
                self._refuse_too_soon(self._releases[user], key, now)
                self._refuse_replay(self._releases[user], key)
                self._refuse_if_exhausted(self._releases[user].events, event)
            line = {
                "kind": "reserve",
                **asdict(key),
                "event": asdict(event),
                "policy": self._policy.hash(),
                "unix_seconds": now,
            }
            file.append([{**line, "user": user} for user in self._users])
            self._fold()

    def releases(self) -> dict[str, Counter[SanitizedGradientEvent]]:
        """Return every user's releases so far, users without any included."""
        with self._file.locked():
            self._fold()
            return {user: releases.events.copy() for user, releases in self._releases.items()}

    def last_second(self) -> float:
        """Return when the newest release was reserved, in seconds since 1970; 0 if none was."""
        with self._file.locked():
            self._fold()
            return max(releases.last_second for releases in self._releases.values())

    @staticmethod
    def users_of(path: Path) -> tuple[str, ...]:
        """Return whose ledger this is, for people who look into one.

        Raises:
            LedgerUnavailable: it cannot be read, or is not a device's.
        """
        with LedgerFile(path).locked() as file:
            users = file.header.get("users")
        if not isinstance(users, list):
            raise LedgerUnavailable(f"ledger {path.name} names no users; it is not a device's")
        return tuple(users)

    def _fold(self) -> None:
        """Bring the counts in memory up to what the file holds."""
        if not self._users or self._file.header.get("users") != list(self._users):
            raise LedgerUnavailable(
                f"ledger {self._file.path.name} is of users {self._file.header.get('users')}, the "
                f"data is of {list(self._users)}: somebody would not be charged; keep one folder "
                "for one way of dealing writers to clients"
            )
        for entry in self._file.entries[self._folded_entries :]:
            try:
                self._releases[entry["user"]].count(entry)
            except (KeyError, TypeError, ValueError) as error:
                raise LedgerUnavailable(
                    f"ledger {self._file.path.name}: an entry is not one of this ledger's "
                    f"({error}); it counts as exhausted"
                ) from error
            self._folded_entries += 1

    def _refuse_too_many(self, releases: UserReleases) -> None:
        limit = self._policy.max_participations
        if 0 < limit <= releases.events.total():
            raise TooManyParticipations(
                f"max-participations={limit} would be passed: {releases.events.total()} so far; "
                "this user answers no more"
            )

    def _refuse_too_soon(self, releases: UserReleases, key: ReleaseKey, now: float) -> None:
        rounds, seconds = self._policy.min_separation_rounds, self._policy.min_separation_seconds
        for earlier in releases.keys if rounds else ():
            apart = abs(earlier.server_round - key.server_round)
            if earlier.experiment_id == key.experiment_id and apart < rounds:
                raise MinSeparation(
                    f"server-round={key.server_round} must be at least min-separation-rounds="
                    f"{rounds} from every answered round; {earlier.server_round} is not"
                )
        # A clock that went back would let the server ask at once: it waits until it has caught up.
        if seconds and releases.keys and now - releases.last_second < seconds:
            raise MinSeparation(
                f"min-separation-seconds={seconds:g} have not passed since the last answer"
            )

    def _refuse_replay(self, releases: UserReleases, key: ReleaseKey) -> None:
        if self._policy.lost_replies == "refuse" and key in releases.keys:
            raise Replay(
                f"server-round={key.server_round} was answered, its bytes are not kept any more, "
                "and lost-replies=refuse allows no second charge"
            )

    def _refuse_if_exhausted(
        self, spent: Counter[SanitizedGradientEvent], event: SanitizedGradientEvent
    ) -> None:
        policy = self._policy
        wanted = compose(spent + Counter([event]), self._relation)
        if wanted > self._max_mu:
            spent_mu = compose(spent, self._relation)
            raise BudgetExhausted(
                f"max-epsilon={policy.max_epsilon:g} would be passed: spent "
                f"{gaussian_epsilon(spent_mu, policy.delta):.4g}, with this release "
                f"{gaussian_epsilon(wanted, policy.delta):.4g}, at delta={policy.delta:g} under "
                f"{self._relation}; this user answers no more"
            )
