"""Why a device refuses: decided from the request, the policy and the ledger, never from data.

A refusal may be told to the server. It happens before any data is read, and what it says the server
knows or could count itself.
"""

import re


class Refusal(RuntimeError):
    """A release was refused before any data was read.

    Attributes:
        code: of the Flower error message that carries it.
    """

    code = 1000

    @property
    def name(self) -> str:
        """Its name on the wire and in logs: the class's in capitals, ``BUDGET_EXHAUSTED``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).upper()


class BudgetExhausted(Refusal):
    """The release would take some user past the lifetime budget."""

    code = 1001


class MalformedInput(Refusal):
    """The request breaks the schema: a missing field, a type, a shape, a number out of range."""

    code = 1002


class TooManyParticipations(Refusal):
    """Some user has answered as often as the policy allows."""

    code = 1004


class MinSeparation(Refusal):
    """Too few rounds, or too little time, since some user answered last."""

    code = 1005


class RequestExceedsPolicy(Refusal):
    """The request asks for more than the device's policy allows: rows, bound, less noise."""

    code = 1006


class LedgerUnavailable(BudgetExhausted):
    """The ledger is missing, damaged or not writable, which counts as exhausted."""

    code = 1007


class LedgerLocked(Refusal):
    """Another process holds the ledger, or answers for this client, and does not let go."""

    code = 1008


class Replay(Refusal):
    """The request was answered before, its bytes are gone, and no second charge is allowed."""

    code = 1009


class RngUnavailable(Refusal):
    """The operating system gives no random bytes, so there would be no noise."""

    code = 1010


class SanitizerSelftestFailed(Refusal):
    """The sanitizer on this machine does not clip or does not add the noise it should."""

    code = 1011
