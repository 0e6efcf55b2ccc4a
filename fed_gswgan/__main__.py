"""The command ``fed-gswgan``, whose start Ctrl-C ends in silence: ``python -m fed_gswgan``."""

import signal
import sys


def main() -> int:
    """Load the commands, run one, and return its exit status."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of a half-loaded module
    from fed_gswgan.cli import main as command

    signal.signal(signal.SIGINT, before)
    return command()


if __name__ == "__main__":
    sys.exit(main())
