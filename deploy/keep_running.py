"""Sees a run to its end: submits it, and resumes it after every crash of ServerApp or SuperLink.

    Usage: python -m deploy.keep_running APP --config FILE --output DIR

It needs nothing but ``flwr`` and the run's folder, so it runs beside the SuperLink that systemd
keeps up. A run that is there is resumed, one that is finished is left alone: starting it after the
machine restarted does no harm.
"""

import argparse
import logging
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from deploy.flower_commands import output_of
from deploy.submission import Submission
from fed_gswgan.reporting.logs import log_to
from fed_gswgan.reporting.round_log import read_rounds
from fed_gswgan.reporting.run_folder import RUN, SUMMARY, Checkpoint, is_running
from fed_gswgan.settings import Value
from server.strategy import PATIENCE_ROUNDS

logger = logging.getLogger("deploy.keep_running")  # also when started with -m

POLL_SECONDS = 0.5
START_PATIENCE_SECONDS = 120.0  # from submitting a run until its ServerApp opens the folder
PAUSE_SECONDS = 5.0  # after a failure, for whatever is down to come up again
LONGEST_STANDSTILL = 5  # submissions in a row that finish no round


class RunFailed(RuntimeError):
    """The run did not get any further, submission after submission."""


class NobodyAnswers(RunFailed):
    """Round after round too few devices answered, while everybody asked was charged."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run to the end; return 0, 1 if it stands still, 3 if going on would charge for nothing."""
    parser = argparse.ArgumentParser(prog="python -m deploy.keep_running", description=__doc__)
    parser.add_argument("app", type=Path, help="folder of the app, as `flwr run` takes it")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, required=True, help="TOML file of settings")
    options = parser.parse_args(arguments)
    log_to(logging.StreamHandler())
    settings = tomllib.loads(options.config.read_text())

    submission = Submission(output_of)
    try:
        keep_running(partial(submission.submit, options.app), options.output.absolute(), settings)
    except RunFailed as error:
        logger.error("%s", error)
        return 3 if isinstance(error, NobodyAnswers) else 1
    return 0


def keep_running(
    submit: Callable[[Mapping[str, Value]], None],
    run_folder: Path,
    settings: Mapping[str, Value],
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Return once the run in ``run_folder`` is finished.

    Args:
        submit: sends the app with these settings to the SuperLink; may fail while that is down.
        run_folder: of the run; its lock tells whether a ServerApp is at it.
        settings: of a new run, ``output-dir`` and ``resume`` aside.
        watch: called all the while; may start again what has ended.

    Raises:
        NobodyAnswers: the last five rounds since this began took no step; whoever looks after the
            devices is needed, and may then start this again.
        RunFailed: no round was finished by the last so many submissions.
    """
    finished = _finished_round(run_folder)
    begun_at = max([finished, *(line["server_round"] for line in read_rounds(run_folder))])
    standstill = -1  # submissions since the last that finished a round, but for the one to come
    while not _ended(run_folder):
        if is_running(run_folder):
            watch()
            time.sleep(POLL_SECONDS)
            continue
        now_finished = _finished_round(run_folder)
        standstill = 0 if now_finished > finished else standstill + 1
        finished = now_finished
        if standstill == LONGEST_STANDSTILL:
            raise RunFailed(
                f"{run_folder}: round {finished} is the last one finished, after "
                f"{LONGEST_STANDSTILL} more attempts; the SuperLink's log says why"
            )
        _require_steps(run_folder, begun_at)
        watch()
        resume = (run_folder / RUN).exists()
        logger.info("%s the run in %s", "resuming" if resume else "starting", run_folder)
        try:
            submit({**settings, "output-dir": str(run_folder), "resume": resume})
        except (RuntimeError, subprocess.SubprocessError) as error:
            logger.warning("not submitted: %s", error)
            time.sleep(PAUSE_SECONDS)
            continue
        _wait_for_start(run_folder, watch)


def _require_steps(run_folder: Path, begun_at: int) -> None:
    """Raise NobodyAnswers if the last rounds after ``begun_at`` asked and took no step."""
    asked = [r for r in read_rounds(run_folder) if r["server_round"] > begun_at and r["asked"]]
    latest = asked[-PATIENCE_ROUNDS:]
    if len(latest) == PATIENCE_ROUNDS and not any(r["stepped"] for r in latest):
        raise NobodyAnswers(
            f"{run_folder}: no generator step in its last {PATIENCE_ROUNDS} rounds, while "
            "everybody asked was charged; run.log says why the others did not answer. Mend that "
            "and start this again"
        )


def _wait_for_start(run_folder: Path, watch: Callable[[], None]) -> None:
    """Wait until a ServerApp has the folder, or was there already and ended, or none comes."""
    before = _mark(run_folder)
    deadline = time.monotonic() + START_PATIENCE_SECONDS
    while not is_running(run_folder) and _mark(run_folder) == before:
        if time.monotonic() > deadline:
            return
        watch()
        time.sleep(POLL_SECONDS)


def _mark(run_folder: Path) -> int:
    """Return when run.json was last written, which each ServerApp does first; 0 before."""
    index = run_folder / RUN
    return index.stat().st_mtime_ns if index.exists() else 0


def _ended(run_folder: Path) -> bool:
    return (run_folder / SUMMARY).exists() and not is_running(run_folder)


def _finished_round(run_folder: Path) -> int:
    checkpoint = Checkpoint(run_folder)
    return checkpoint.progress().server_round if checkpoint.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
