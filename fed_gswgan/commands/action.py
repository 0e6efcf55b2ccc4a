"""One of several commands that do something to the same thing: a device, a ledger."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_action(
    actions: Any,
    name: str,
    command: Callable[[argparse.Namespace], dict[str, Any]],
    what: str,
    subject: str,
    metavar: str,
) -> argparse.ArgumentParser:
    """Add a command with the path that it is about and ``--json``, and return its parser.

    Args:
        actions: where it is added.
        name: of the command.
        command: gets the options and returns what it found.
        what: it does, for the help text.
        subject: name of the path among the options.
        metavar: of that path in the help text.
    """
    parser: argparse.ArgumentParser = actions.add_parser(name, help=what)
    parser.add_argument(subject, type=Path, metavar=metavar)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(command=command)
    return parser
