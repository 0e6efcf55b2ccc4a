"""Randomness as an argument: one independent stream for each (seed, purpose, round, client).

A client's draw never depends on cohort size, call order or runtime, and two seeds share nothing.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SeedStream:
    """Derives named random generators from one run seed."""

    seed: int

    def generator(
        self, purpose: str, server_round: int = 0, client_id: str = ""
    ) -> np.random.Generator:
        """Return a fresh generator for this purpose, round and client.

        The 128-bit key is a hash of all four, so two streams coincide with probability 2^-128
        a pair (a 32-bit seed would collide within a large run).
        """
        return np.random.Generator(
            np.random.Philox(key=self._key(purpose, server_round, client_id))
        )

    def torch_seed(self, purpose: str, server_round: int = 0, client_id: str = "") -> int:
        """Return a 63-bit seed for code that only takes an integer (layer initialisation)."""
        return self._key(purpose, server_round, client_id) >> 65

    def _key(self, purpose: str, server_round: int, client_id: str) -> int:
        text = f"{self.seed}\x1f{purpose}\x1f{server_round}\x1f{client_id}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
