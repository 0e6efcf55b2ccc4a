"""Replacing a file in one piece, so that a crash leaves the old one or the new one."""

import json
from pathlib import Path
from typing import Any

from fed_gswgan.privacy.ledger import write_durably

READABLE = 0o644


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file that other accounts may read."""
    write_durably(path, data, READABLE)


def replace_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, in one piece; not-a-number and infinity are refused."""
    replace_file(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
