"""The population of a Grid whose node ids follow from partition ids: nobody needs to be asked."""

from dataclasses import dataclass

from flwr.serverapp import Grid

from fed_gswgan.device.population import virtual_client_id
from simulations.in_process_grid import FIRST_NODE_ID


@dataclass(frozen=True)
class VirtualNodes:
    """Virtual clients 0, 1, 2 ... at ``FIRST_NODE_ID`` and the nodes after; see ``server.nodes``.

    Attributes:
        count: of clients, and of nodes.
    """

    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> str:
        return virtual_client_id(range(self.count)[position])

    def node_id(self, client_id: str) -> int:
        """Return where a client answers."""
        return FIRST_NODE_ID + int(client_id.rpartition("-")[2])

    def refresh(self, grid: Grid) -> frozenset[str]:
        """Return nobody: virtual nodes are always there."""
        return frozenset()
