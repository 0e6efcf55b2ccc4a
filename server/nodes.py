"""Who can be asked, and at which node: the population, in the order of its client ids."""

from typing import Protocol

from flwr.serverapp import Grid

from server.cohort_sampling import ClientIds


class Nodes(ClientIds, Protocol):
    """All client ids, sorted, and the node of each; told one by one, so that none need be made."""

    def node_id(self, client_id: str) -> int:
        """Return where a client answers."""

    def refresh(self, grid: Grid) -> frozenset[str]:
        """Look who is there, and return the client ids of those who are not."""
