"""Who can be asked, and at which node: the population, in the order of its client ids."""

from collections.abc import Mapping
from typing import Protocol

from server.cohort_sampling import ClientIds


class Nodes(ClientIds, Protocol):
    """All client ids, sorted, and the node of each; told one by one, so that none need be made."""

    def node_id(self, client_id: str) -> int:
        """Return where a client answers."""


class RegisteredNodes:
    """The clients who registered.

    Args:
        nodes: client id to node id.
    """

    def __init__(self, nodes: Mapping[str, int]) -> None:
        self._nodes = nodes
        self._client_ids = sorted(nodes)

    def __len__(self) -> int:
        return len(self._client_ids)

    def __getitem__(self, position: int) -> str:
        return self._client_ids[position]

    def node_id(self, client_id: str) -> int:
        """Return where a client answers."""
        return self._nodes[client_id]
