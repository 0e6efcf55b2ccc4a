"""Roster of a device: whose devices its owner believes in, in a file beside the policy.

TOML: who made it, and the public keys of each person's devices, in hexadecimal::

    made-by = "J. Doe, 2026-11-28; keys compared by telephone"
    [people]
    alice = ["6f0c..."]
    bob = ["51aa...", "9d3e..."]

Whoever makes the roster decides who counts as honest: a made-up person in it weakens every sum.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.durable import write_durably
from fed_gswgan.privacy.policy import Policy
from fed_gswgan.secure_aggregation.keys import KEY_BYTES
from fed_gswgan.secure_aggregation.terms import Roster
from fed_gswgan.settings import check_keys, read_toml, toml_value

ROSTER = "roster.toml"
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")


@dataclass(frozen=True)
class RosterFile:
    """What is in the file.

    Attributes:
        made_by: who made it, in the owner's words.
        people: whose each public key is.
    """

    made_by: str
    people: dict[bytes, str]

    @classmethod
    def from_table(cls, table: dict[str, Any], where: str) -> "RosterFile":
        """Build from the file's table.

        Raises:
            ValueError: an unknown or missing entry, a key that is none, or one of two people.
        """
        check_keys(table, ("made-by", "people"), where)
        made_by, persons = table.get("made-by"), table.get("people")
        if not isinstance(made_by, str) or not made_by.strip() or not made_by.isprintable():
            raise ValueError(f"{where}made-by must be given: who made this roster, on one line")
        if not isinstance(persons, dict) or not persons:
            raise ValueError(f"{where}people must be given: a list of keys for each person")
        owned = []
        for person, keys in persons.items():
            for key in keys if isinstance(keys, list) else [keys]:
                if not isinstance(key, str) or not _KEY.fullmatch(key):
                    raise ValueError(
                        f"{where}people.{person}: {key!r} must be a public key, {2 * KEY_BYTES} "
                        "hexadecimal digits, as device init prints it"
                    )
                owned.append((bytes.fromhex(key), person))
        return cls(made_by, _people(owned, where))

    def plus(self, made_by: str, people: dict[bytes, str], where: str = "") -> "RosterFile":
        """Return this roster with further keys.

        Raises:
            ValueError: a key is another person's already.
        """
        makers = dict.fromkeys([*self.made_by.split("; "), *made_by.split("; ")])
        owned = [*self.people.items(), *people.items()]
        return RosterFile("; ".join(makers), _people(owned, where))

    def install(self, folder: Path) -> None:
        """Make it the roster of a device."""
        write_durably(folder / ROSTER, self.to_toml().encode())

    def to_toml(self) -> str:
        """Return the file's text."""
        keys: dict[str, list[str]] = {}
        for key, person in self.people.items():
            keys.setdefault(person, []).append(key.hex())
        lines = [f"made-by = {toml_value(self.made_by)}", "[people]"]
        lines += [f"{toml_value(who)} = {toml_value(tuple(of))}" for who, of in keys.items()]
        return "".join(f"{line}\n" for line in lines)

    def roster(self, policy: Policy) -> Roster:
        """Return it as the protocol has it, with the owner's limits."""
        return Roster(
            people=self.people,
            min_honest=policy.min_honest,
            max_colluding=policy.max_colluding,
        )


def read_roster(path: Path) -> RosterFile:
    """Read a roster.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    return RosterFile.from_table(read_toml(path), f"{path.name}: ")


def add_to_roster(folder: Path, made: Path) -> RosterFile:
    """Install the keys of a roster that somebody made beside those that a device has.

    Raises:
        OSError, ValueError: it cannot be read, is none, or contradicts what is there.
    """
    roster = read_roster(made)
    if (folder / ROSTER).exists():
        there = read_roster(folder / ROSTER)
        roster = there.plus(roster.made_by, roster.people, f"{made.name}: ")
    roster.install(folder)
    return roster


def _people(owned: Iterable[tuple[bytes, str]], where: str) -> dict[bytes, str]:
    """Return whose each key is; ValueError for a key of two people."""
    people: dict[bytes, str] = {}
    for key, person in owned:
        if (owner := people.setdefault(key, person)) != person:
            raise ValueError(f"{where}{key.hex()} is {owner}'s, cannot be {person}'s as well")
    return people


def require_roster(roster: RosterFile, policy: Policy, own: bytes) -> None:
    """Require that some cohort of the roster would be answered.

    Raises:
        ValueError: none would, and why.
    """
    if own not in roster.people:
        raise ValueError(f"{ROSTER} must hold this device's own key, {own.hex()}")
    people, wanted = len(set(roster.people.values())), policy.min_honest + policy.max_colluding
    if people < wanted:
        raise ValueError(
            f"{ROSTER}: {people} people must be >= {wanted} (min-honest={policy.min_honest}, "
            f"max-colluding={policy.max_colluding}); add peers, or believe in fewer"
        )
