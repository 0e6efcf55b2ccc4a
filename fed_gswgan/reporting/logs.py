"""Sends this project's log lines somewhere, and nobody else's."""

import logging

PACKAGES = ("fed_gswgan", "server", "client", "simulations", "deploy")


def log_to(handler: logging.Handler) -> None:
    """Let ``handler`` alone receive the INFO lines of this project's packages."""
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
