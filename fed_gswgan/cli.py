"""The command ``fed-gswgan``: what privacy costs, a device and its ledger, the status of a run.

It can also sample a generator, evaluate samples, compare methods, and say what data sets hold.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from fed_gswgan.commands import (
    compare,
    data,
    device,
    evaluate,
    ledger,
    privacy,
    sample,
    status,
)
from fed_gswgan.comparison.results_folder import CellsFailed
from fed_gswgan.privacy.refusals import Refusal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a verdict against, 2 for bad input.

    A command returns a table of what it found. ``--json`` prints it as it is; otherwise the
    command's ``render`` (default: a line for each entry) makes text of it for people. A command
    that judges sets ``verdict``, which returns whether its finding is a good one.
    """
    options = _parser().parse_args(arguments)
    try:
        result = options.command(options)
    except CellsFailed as error:
        print(f"fed-gswgan: {error}", file=sys.stderr)
        return 1
    except Refusal as refusal:
        print(f"fed-gswgan: {refusal.name}: {refusal}", file=sys.stderr)
        return 1
    except (ValueError, OverflowError, OSError, ModuleNotFoundError) as error:
        print(f"fed-gswgan: {error}", file=sys.stderr)
        return 2
    _print(json.dumps(result, allow_nan=False) if options.json else options.render(result))
    return 0 if options.verdict(result) else 1


def _print(text: str) -> None:
    """Print, and be content if the reader, as ``head``, has seen enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its exit, which must not fail again.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def _lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in result.items())


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="fed-gswgan", description=__doc__)
    parser.set_defaults(render=_lines, verdict=lambda result: True)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    privacy.add_parser(commands)
    status.add_parser(commands)
    ledger.add_parser(commands)
    device.add_parser(commands)
    compare.add_parser(commands)
    evaluate.add_parser(commands)
    sample.add_parser(commands)
    data.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
