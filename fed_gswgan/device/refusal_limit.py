"""Limit on refusals: so many a minute are decided one by one, the others get one constant answer.

A server that sends refused requests in a loop takes neither the device's processor nor its disk:
the constant answer reads no tensor, opens no ledger and writes no log.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable

from fed_gswgan.privacy.refusals import TooManyRefusals

logger = logging.getLogger(__name__)

REFUSALS_A_MINUTE = 60
REFUSALS_OF_A_ROUND = 20  # a minute: who asks for one round in a loop leaves room for the others
KEPT_METERS = 1024
KNOWN_EXPERIMENTS = 16


class RefusalLimit:
    """Counts refusals by experiment and round, by a monotonic clock.

    An experiment in which the device released something has a limit of its own, so that no other
    server takes its place; all others share one. What is counted depends on requests, policy and
    ledger alone.
    """

    def __init__(self) -> None:
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()

    def check(self, experiment_id: str, server_round: int, seconds: float) -> None:
        """Require room for one more refusal.

        Args:
            experiment_id: that the request names.
            server_round: that it names.
            seconds: of the monotonic clock.

        Raises:
            TooManyRefusals: there is none; whatever the request says, it is not looked at.
        """
        for key, limit in self._meters(experiment_id, server_round):
            if self._level(key, limit, seconds) > limit - 1:
                raise TooManyRefusals(f"refusals-a-minute={limit} of {key} is reached")

    def note_release(self, experiment_id: str) -> None:
        """Give an experiment a limit of its own from now on."""
        self._known[experiment_id] = None
        self._known.move_to_end(experiment_id)
        if len(self._known) > KNOWN_EXPERIMENTS:
            self._known.popitem(last=False)

    def note(self, experiment_id: str, server_round: int, seconds: float) -> None:
        """Count a refusal."""
        for key, limit in self._meters(experiment_id, server_round):
            level = self._level(key, limit, seconds) + 1
            self._levels[key] = level, seconds
            self._levels.move_to_end(key)
            if level > limit - 1:
                logger.warning("refused %d requests of %s: no more are looked at", limit, key)
        while len(self._levels) > KEPT_METERS:
            self._levels.popitem(last=False)

    def _meters(self, experiment_id: str, server_round: int) -> list[tuple[Hashable, int]]:
        """Return what a refusal counts for, each with its limit a minute."""
        shared = ("experiment", experiment_id) if experiment_id in self._known else "other servers"
        return [
            (("round", experiment_id, server_round), REFUSALS_OF_A_ROUND),
            (shared, REFUSALS_A_MINUTE),
        ]

    def _level(self, key: Hashable, limit: int, seconds: float) -> float:
        """Return how many refusals count now: they are forgotten at the pace of the limit."""
        level, before = self._levels.get(key, (0.0, seconds))
        return max(0.0, level - (seconds - before) * limit / 60)
