"""What may differ between two neighbouring worlds, and how far that can move a clipped value."""

from enum import StrEnum


class NeighboringRelation(StrEnum):
    """How one user's data may change.

    The relation never changes the noise; it says how the noise is read.
    """

    REPLACE_ONE = "replace-one"  # the user's data is exchanged for any other
    ZERO_OUT = "zero-out"  # the user's contribution is replaced by zeros, the noise stays

    @property
    def sensitivity_multiple(self) -> int:
        """Distance between two neighbouring values of norm at most C, in units of C."""
        return {NeighboringRelation.REPLACE_ONE: 2, NeighboringRelation.ZERO_OUT: 1}[self]
