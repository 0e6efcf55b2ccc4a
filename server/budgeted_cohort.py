"""The cohort under budgets: who is drawn and may be asked, and whether anybody still may."""

from collections.abc import Container

from fed_gswgan.config import CohortConfig
from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.user_ledgers import UserLedgers
from fed_gswgan.seeding import SeedStream
from server.cohort_sampling import ClientIds, select_cohort


class BudgetedCohort:
    """Draws cohorts of those whom the server's own count lets pay for another release.

    Args:
        population: all client ids, sorted; clients may join it.
        config: how a cohort is drawn.
        seeds: of the run.
        user_ledgers: the server's own count of private releases.
        event: what one reply costs its user.
    """

    def __init__(
        self,
        population: ClientIds,
        config: CohortConfig,
        seeds: SeedStream,
        user_ledgers: UserLedgers,
        event: SanitizedGradientEvent,
    ) -> None:
        self._population = population
        self._config = config
        self._seeds = seeds
        self._user_ledgers = user_ledgers
        self._event = event
        self._exhausted = 0  # so many clients, from the first, cannot be asked any more
        self._counted = len(population)  # when that was found

    def select(self, server_round: int, absent: Container[str]) -> list[str]:
        """Return the cohort, drawn among those who are there, less those without a budget."""
        drawn = select_cohort(self._population, server_round, self._config, self._seeds, absent)
        return [client_id for client_id in drawn if not self._would_exceed(client_id)]

    def everybody_is_exhausted(self) -> bool:
        """Tell whether no client may be asked any more; who was found so is not looked at again."""
        size = len(self._population)
        if size != self._counted:  # somebody joined, and may stand before those counted
            self._exhausted, self._counted = 0, size
        while self._exhausted < size and self._would_exceed(self._population[self._exhausted]):
            self._exhausted += 1
        return self._exhausted == size

    def _would_exceed(self, client_id: str) -> bool:
        return self._user_ledgers.would_exceed(client_id, self._event)
