"""Refusals of a device: decided from the request, the policy and the ledger, never from data.

A refusal tells the server a code and a limit: what the request breaks, or the policy's own limit.
What the ledger says stays in the device's log.
"""

import re


class Refusal(RuntimeError):
    """A release was refused before any data was read.

    Args:
        detail: for the owner's log.
        limit: for the server as well; names only the request's own fields or the policy's limit.

    Attributes:
        code: on the wire.
    """

    code = 1000

    def __init__(self, detail: str, limit: str | None = None) -> None:
        super().__init__(detail)
        self.limit = "" if limit is None else limit

    @property
    def name(self) -> str:
        """Name in logs: the class's in capitals, ``BUDGET_EXHAUSTED``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).upper()


class BudgetExhausted(Refusal):
    """The release would take a user past the lifetime budget."""

    code = 1001


class MalformedInput(Refusal):
    """The request breaks the schema: a missing field, a type, a shape, a number out of range."""

    code = 1002

    def __init__(self, detail: str, limit: str | None = None) -> None:
        super().__init__(detail, detail if limit is None else limit)


class TooManyParticipations(Refusal):
    """A user has answered as often as the policy allows."""

    code = 1004


class MinSeparation(Refusal):
    """Too few rounds, or too little time, since a user answered last."""

    code = 1005


class RequestExceedsPolicy(MalformedInput):
    """The request asks for more than the policy allows: a trust model, rows, bound, less noise."""

    code = 1006


class LedgerUnavailable(BudgetExhausted):
    """The ledger is missing, damaged, rolled back or not writable, which counts as exhausted.

    The server sees an exhausted budget.
    """


class LedgerLocked(Refusal):
    """Another process holds the ledger and does not let go."""

    code = 1008


class Replay(Refusal):
    """The request was answered before, its reply is gone, and no second charge is allowed."""

    code = 1009


class RngUnavailable(Refusal):
    """The operating system gives no random bytes, so there would be no noise."""

    code = 1010


class MechanismSelftestFailed(Refusal):
    """The mechanism on this machine does not clip or does not add the noise it should."""

    code = 1011


class ClientFailed(Refusal):
    """The guard could not answer for a reason that it does not tell."""

    code = 1012


class UnsafeAggregation(Refusal):
    """A message of secure aggregation breaks the protocol, or its terms the owner's roster."""

    code = 1013


class TooManyRefusals(Refusal):
    """So many requests were refused of late that this one is not looked at."""

    code = 1014


_BY_CODE: dict[int, type[Refusal]] = {
    kind.code: kind
    for kind in (
        BudgetExhausted,
        MalformedInput,
        TooManyParticipations,
        MinSeparation,
        RequestExceedsPolicy,
        LedgerLocked,
        Replay,
        RngUnavailable,
        MechanismSelftestFailed,
        ClientFailed,
        UnsafeAggregation,
        TooManyRefusals,
    )
}


def refusal_named(code: int, limit: str) -> Refusal:
    """Return the refusal that a code on the wire stands for."""
    return _BY_CODE.get(code, Refusal)(limit, limit)
