"""Run to its end: submit or resume it, wait, and exit with status 3 on a stall.

``flwr run`` ends with status 0 whatever becomes of the run, so systemd alone would not notice.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from deploy.flower_commands import Submission, output_of
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, is_running
from fed_gswgan.settings import Value, read_toml
from server.strategy import PATIENCE_ROUNDS

Call = Callable[..., None]
logger = logging.getLogger("deploy.keep_running")  # also when started with -m
POLL_SECONDS, PAUSE_SECONDS, MOST_ATTEMPTS = 0.5, 5.0, 5  # submissions that finish no round
START_PATIENCE_SECONDS = 120.0  # from submitting a run until its ServerApp opens the folder


class RunStalled(RuntimeError):
    """The last rounds took no step, or the last submissions finished no round."""


def main() -> int:
    """Run to the end; return 0, or 3 on a stall."""
    parser = argparse.ArgumentParser(prog="python -m deploy.keep_running", description=__doc__)
    parser.add_argument("app", type=Path, help="folder of the app, as `flwr run` takes it")
    for name, what in (("--output", "folder of the run"), ("--config", "TOML file of settings")):
        parser.add_argument(name, type=Path, required=True, help=what)
    options = parser.parse_args()
    log_to(logging.StreamHandler())
    submit = partial(Submission(output_of).submit, options.app)
    try:
        keep_running(submit, options.output.absolute(), read_toml(options.config))
    except RunStalled as error:
        logger.error("%s", error)
        return 3
    return 0


def keep_running(
    submit: Call, run_folder: Path, settings: Mapping[str, Value], watch: Call = lambda: None
) -> None:
    """Return once the run is finished; raise RunStalled. ``watch`` is called all the while."""
    begun, attempts, finished, start_by, before = len(read_rounds(run_folder)), 0, -1, 0.0, 0.0
    index = run_folder / RUN  # each ServerApp writes it first
    while True:
        watch()
        mark = index.stat().st_mtime if index.exists() else 0.0
        if is_running(run_folder) or (time.monotonic() < start_by and mark == before):
            time.sleep(POLL_SECONDS)
            continue
        if (run_folder / SUMMARY).exists():
            return
        rounds, before = read_rounds(run_folder), mark
        latest = [line["stepped"] for line in rounds[begun:] if line["asked"]][-PATIENCE_ROUNDS:]
        attempts, finished = (attempts + 1 if len(rounds) <= finished else 0), len(rounds)
        if attempts == MOST_ATTEMPTS or (len(latest) == PATIENCE_ROUNDS and not any(latest)):
            raise RunStalled(f"{run_folder}: no step after round {finished}; see its run.log")
        resume = index.exists()
        logger.info("%s the run in %s", "resuming" if resume else "starting", run_folder)
        try:
            submit({**settings, "output-dir": str(run_folder), "resume": resume})
            start_by = time.monotonic() + START_PATIENCE_SECONDS
        except (RuntimeError, subprocess.SubprocessError) as error:
            logger.warning("not submitted: %s", error)
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
