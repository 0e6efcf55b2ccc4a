"""Sends this project's log lines somewhere, and nobody else's."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST_LINE = 300
PACKAGES = ("fed_gswgan", "server", "client", "simulations", "deploy")


def log_to(handler: logging.Handler) -> None:
    """Let ``handler`` alone receive the INFO lines of this project's packages."""
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False


class _FileHandler(logging.FileHandler):
    """A file of log lines; one that a full disk does not take is lost, and costs nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: what fills the disk is said by whoever needs what is written."""


@contextmanager
def also_log_to(path: Path) -> Iterator[None]:
    """Append this project's INFO lines to a file, each with its time, until the block ends.

    An exception that ends the block is the last line.
    """
    handler = _FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(package) for package in PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        logger.addHandler(handler)
    try:
        yield
    except Exception as error:
        handler.handle(logger.makeRecord(__name__, logging.ERROR, "", 0, str(error), (), None))
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()


def one_line(text: str) -> str:
    """Return a client's text as one short line, so that it can neither forge nor fill a log."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST_LINE])
