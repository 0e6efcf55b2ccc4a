"""Where a ledger ends, kept apart from it, so that lines cut from its end are missed.

The head lies beside the ledger and is written after every line, before anything is released on the
strength of the line. After a crash in between it lags behind, which is harmless: what it does not
know yet was never released. A ledger shorter than its head was cut.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_gswgan.privacy.durable_file import replace_durably, replace_whole
from fed_gswgan.privacy.refusals import LedgerUnavailable


@dataclass(frozen=True)
class LedgerHead:
    """The end of a ledger.

    Attributes:
        size_bytes: of the file.
        last_hash: of its last line, to which every line before it is chained.
    """

    size_bytes: int
    last_hash: str


def head_path(ledger: Path) -> Path:
    """Return where the head of this ledger lies: ``ledger.jsonl`` has ``ledger.head``."""
    return ledger.with_suffix(".head")


def write_head(ledger: Path, head: LedgerHead, sync: bool = True) -> None:
    """Put a new head in place, by default on disk when this returns; OSError if it cannot be."""
    replace = replace_durably if sync else replace_whole
    replace(head_path(ledger), json.dumps(asdict(head)).encode())


def read_head(ledger: Path) -> LedgerHead:
    """Return the head.

    Raises:
        LedgerUnavailable: it is missing or is no head.
    """
    path = head_path(ledger)
    try:
        head = LedgerHead(**json.loads(path.read_bytes()))
        valid = type(head.size_bytes) is int and type(head.last_hash) is str
        valid = valid and head.size_bytes > 0  # there is no ledger without its first line
    except (OSError, ValueError, TypeError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no head"
        raise LedgerUnavailable(
            f"{path.name}, where ledger {ledger.name} ends: {why}; the ledger counts as exhausted; "
            "restore both from a backup that is not older than the last reply"
        ) from error
    if not valid:
        raise LedgerUnavailable(f"{path.name}: it is no head of a ledger; it counts as exhausted")
    return head
