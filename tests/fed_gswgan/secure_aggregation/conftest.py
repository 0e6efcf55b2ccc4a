"""A cohort of real devices, and an attacker who is the server and some of them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from fed_gswgan.secure_aggregation.aggregation import Aggregation
from fed_gswgan.secure_aggregation.keys import Identity
from fed_gswgan.secure_aggregation.protocol import Device, Round
from fed_gswgan.secure_aggregation.terms import Roster, Terms


def seeded(name: str) -> Callable[[int], bytes]:
    """Return reproducible bytes."""
    count = 0

    def random(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{name} {count}".encode()).digest(size)

    return random


@dataclass
class Cohort:
    """Devices, what each remembers, and all that the server has seen.

    The last ``colluding`` places are the attacker's.
    """

    size: int = 12
    honest: int = 6
    colluding: int = 2
    threshold: int = 8
    numbers: int = 30
    bits: int = 12
    states: dict[int, Round] = field(default_factory=dict)
    masked: dict[int, np.ndarray] = field(default_factory=dict)
    revealed: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = [Identity(seeded(f"identity {n}")(32)) for n in range(self.size)]
        self.identities = sorted(made, key=lambda identity: identity.public)
        people = {identity.public: f"person {n}" for n, identity in enumerate(self.identities)}
        self.roster = Roster(people=people, min_honest=self.honest, max_colluding=self.colluding)
        self.terms = self.terms_of()
        self.devices = [
            Device(identity, self.roster, seeded(f"device {place}"))
            for place, identity in enumerate(self.identities)
        ]
        drawn = np.random.default_rng(0)
        self.releases = drawn.integers(-50, 50, (self.size, self.numbers))

    def terms_of(self, **changed) -> Terms:
        """Return the usual terms, some of them changed."""
        usual = dict(
            experiment_id="run", server_round=1, request_hash="00", size=self.numbers,
            modulus_bits=self.bits, honest=self.honest, threshold=self.threshold,
            cohort=tuple(identity.public for identity in self.identities),
        )  # fmt: skip
        return Terms(**{**usual, **changed})

    def aggregation(self) -> Aggregation:
        """Return an honest server's part."""
        return Aggregation(self.terms, self.honest + self.colluding)

    def keys(self, places: Iterable[int] | None = None) -> dict[int, bytes]:
        """Let devices send their keys."""
        return self._step(places, lambda place, device: device.keys(self.terms))

    def shares(self, messages: bytes, places: Iterable[int] | None = None) -> dict[int, bytes]:
        """Let devices seal their shares."""
        return self._step(places, lambda place, device: device.shares(self.states[place], messages))

    def send_masked(self, sealed: dict[int, bytes]) -> dict[int, bytes]:
        """Let devices open shares and send their releases; return the signatures."""
        signatures = {}
        for place, of_place in sealed.items():
            device = self.devices[place]
            self._keep(place, device.receive(self.states[place], of_place))
            self.masked[place] = device.masked(self.states[place], self.releases[place])
            payload = self.masked[place].tobytes()
            signatures[place] = device.sign_masked(self.states[place], payload)
        return signatures

    def sign(self, survivors: bytes, places: Iterable[int]) -> dict[int, bytes]:
        """Let devices sign the list of survivors."""
        return self._step(
            places, lambda place, device: device.sign_survivors(self.states[place], survivors)
        )

    def unmask(self, signatures: bytes, places: Iterable[int]) -> dict[int, bytes]:
        """Let devices reveal their shares."""
        sent = self._step(
            places, lambda place, device: device.unmask(self.states[place], signatures)
        )
        self.revealed |= sent
        return sent

    def _step(self, places, call) -> dict[int, bytes]:
        sent = {}
        for place in range(self.size) if places is None else places:
            state, sent[place] = call(place, self.devices[place])
            self._keep(place, state)
        return sent

    def _keep(self, place: int, state: Round) -> None:
        """Remember as a device does: on disk, before the message leaves."""
        self.states[place] = Round.from_json(state.to_json())
        assert self.states[place] == state

    @property
    def attackers(self) -> range:
        """Places of the attacker's own devices."""
        return range(self.size - self.colluding, self.size)

    def opened(self) -> list[set[int]]:
        """Return the honest devices in each sum that the attacker can free of all masks.

        It knows what its devices know, and from t shares of a secret the secret. A mask that it
        does not know must cancel: both ends of a pair must have drawn it from the same key, and
        stand in the sum together.
        """
        honest = [place for place in self.masked if place not in self.attackers]
        seeds, secrets = self._known()
        blocked = {place for place in honest if place not in seeds}
        joined = {place: {place} for place in honest}
        for place in set(honest) - secrets:
            for peer, key in self.states[place].pair_keys.items():
                if peer in self.attackers or peer in secrets:
                    continue
                if peer not in honest or self.states[peer].pair_keys.get(place) != key:
                    blocked.add(place)
                    continue
                group = joined[place] | joined[peer]
                joined |= dict.fromkeys(group, group)
        groups = {frozenset(group) for group in joined.values()}
        return [set(group) for group in groups if not group & blocked]

    def _known(self) -> tuple[set[int], set[int]]:
        """Return the devices whose seed, and those whose masking secret, t shares give."""
        held: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        for place in self.attackers:
            if place in self.states:
                for of_kind in held:
                    of_kind.update(list(self.states[place].shares))
        for place in set(self.revealed) - set(self.attackers):
            state = self.states[place]
            for peer in state.shares:
                held[peer not in state.survivors][peer] += 1
        seeds, secrets = (
            {peer for peer, count in of_kind.items() if count >= self.threshold} for of_kind in held
        )
        return seeds, secrets


@pytest.fixture
def cohort() -> Cohort:
    """Return twelve devices, two of them the attacker's, of which six honest ones must stay."""
    return Cohort()
