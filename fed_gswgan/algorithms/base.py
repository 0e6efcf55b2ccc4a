"""Contract of an algorithm: what is asked, what a client computes, what the server learns.

An algorithm is a module of this package, or a class named ``package.module:Class``, with four
members: ``Settings``, ``keeps_state``, ``Client`` and ``Server``. It may define
``resolved(settings, data_spec, mean_noise)`` as well, which returns the settings with those filled
in that follow from the noise on one coordinate of the mean, in units of the bound. It never sees a
trust model, a transport, a ledger, or one client's release.

Shapes: R rows of N numbers, E extra numbers.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
from torch import Tensor

from fed_gswgan.data.client_dataset import ClientDataset, DataSpec
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import Settings, plug_in

State = Mapping[str, np.ndarray]
Metrics = dict[str, float]
Sampler = Callable[[Tensor, int], Tensor]  # (labels_B int64, seed) -> samples_BCHW in [0, 1]
NO_NUMBERS = np.empty(0, np.float32)


class ReleaseShape(NamedTuple):
    """Shape of every client's update in a round, and what is bounded.

    Attributes:
        rows: R.
        numbers: N.
        extra: E.
        bounded: ``sample``: each row has L2 norm at most C, and so have the extra numbers
            together; ``message``: the whole update has.
    """

    rows: int
    numbers: int
    extra: int = 0
    bounded: Literal["sample", "message"] = "sample"


class Update(NamedTuple):
    """What a client computes from its data; private until the guard has added noise.

    Attributes:
        rows_RN: any floating dtype; may hold values that are not finite.
        extra_E: likewise.
        state: what the client remembers for its next round; None: as before.
    """

    rows_RN: np.ndarray
    extra_E: np.ndarray = NO_NUMBERS
    state: State | None = None


class Request(Protocol):
    """What a client is asked."""

    @property
    def server_round(self) -> int:
        """From 1."""

    @property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """float32, float16 or int64, by name; all values are finite."""

    @property
    def scalars(self) -> Mapping[str, int | float | str]:
        """By name."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a server sends in a round, and what it keeps for the step.

    Attributes:
        tensors: float32, float16 or int64, by name (lower case, digits, hyphens).
        scalars: by name.
        unit_range: names of the float32 tensors in [0, 1]; they may be sent with fewer bits.
        kept: not sent: latents, for instance.
    """

    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    scalars: Mapping[str, int | float | str] = field(default_factory=dict)
    unit_range: frozenset[str] = frozenset()
    kept: Any = None


class Mean(NamedTuple):
    """The cohort's mean update, as the trust layer forms it.

    Attributes:
        update_RN: float64, noisy.
        extra_E: float64, noisy.
        clients: the divisor: survivors, or the expected cohort under central trust.
        noise_stddev: standard deviation of the noise on one coordinate, absolute.
    """

    update_RN: np.ndarray
    extra_E: np.ndarray
    clients: int
    noise_stddev: float


class Step(NamedTuple):
    """What a server did with a mean.

    Attributes:
        metrics: finite numbers for log and TensorBoard, by name.
        stop: a reason to end the run after this round, from public quantities; empty: go on.
    """

    metrics: Metrics
    stop: str = ""


@dataclass
class ClientView:
    """One client as its algorithm sees it. All of it is private.

    Attributes:
        client_id: its name.
        users: whose data it holds.
        read: reads the data; called once a request, after the reservation.
        seeds: the client's randomness follows from these.
        state: what the client remembered last; None at first.
    """

    client_id: str
    users: tuple[str, ...]
    read: Callable[[], ClientDataset] = field(repr=False)
    seeds: SeedStream = field(repr=False)
    state: State | None = field(default=None, repr=False)

    @cached_property
    def dataset(self) -> ClientDataset:
        """The client's images."""
        return self.read()

    def randomness(self, purpose: str, server_round: int = 0) -> np.random.Generator:
        """Return this client's generator for a purpose in a round."""
        return self.seeds.generator(purpose, server_round, self.client_id)

    def torch_seed(self, purpose: str) -> int:
        """Return this client's seed for networks made for a purpose."""
        return self.seeds.torch_seed(purpose, client_id=self.client_id)


class Client(Protocol):
    """Client half, ``Client(settings, data_spec)``: no generator, no optimizer of the server.

    It may define ``updates(request, clients) -> Sequence[Update | Exception]`` as well, which
    computes a shard's clients in one batch; a failure stays with its client.
    """

    def release(self, server_round: int) -> ReleaseShape:
        """Return the shape of the update, from the settings alone."""

    def check(self, request: Request) -> None:
        """Refuse what no server of this algorithm sends, before the ledger is touched.

        Raises:
            ValueError: naming the tensor or scalar, the rule and the value.
        """

    def update(self, request: Request, client: ClientView) -> Update:
        """Compute the update, from the client's data, state and randomness."""


class Server(Protocol):
    """Server half, ``Server(settings, data_spec, seeds, rounds)``."""

    def request(self, server_round: int) -> Query:
        """Return what is sent in this round; the same for the same state and round."""

    def step(self, server_round: int, query: Query, mean: Mean) -> Step:
        """Learn from the cohort's mean update."""

    def finish(self) -> Metrics:
        """Do what is left, once after the last round, however the rounds end.

        A run that is resumed with more rounds finishes again after them.
        """

    def sampler(self) -> Sampler:
        """Return what draws samples for pictures, evaluation and the ``sample`` command."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``state_dict``, to the same weights to the bit."""


class Algorithm(Protocol):
    """Both halves, their settings, and whether a client remembers."""

    Settings: type[Settings]
    Client: Callable[[Any, DataSpec], Client]
    Server: Callable[[Any, DataSpec, SeedStream, int], Server]

    def keeps_state(self, settings: Any) -> bool:
        """Tell whether a client remembers, which forbids amplification by sampling."""


SHARED = ("base", "solved")  # modules that several algorithms are built on


def algorithm_names() -> list[str]:
    """Return the names of the algorithms in this package."""
    package = importlib.import_module(__package__ or "")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.replace("_", "-") for name in found if name not in SHARED)


def find_algorithm(name: str) -> Algorithm:
    """Return an algorithm of this package, or the class ``package.module:Class``.

    Raises:
        ValueError: there is none of this name, or the class lacks a member of the contract.
    """
    if ":" in name:
        return cast(
            Algorithm, plug_in("algorithm", name, ("Settings", "keeps_state", "Client", "Server"))
        )
    if name not in algorithm_names():
        raise ValueError(
            f"algorithm={name!r} must be one of {', '.join(algorithm_names())}, or "
            "package.module:Class"
        )
    return cast(Algorithm, importlib.import_module(f"{__package__}.{name.replace('-', '_')}"))
