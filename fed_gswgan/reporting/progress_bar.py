"""A progress bar for a terminal: round, epsilon of the worst user, bytes, time left."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fed_gswgan.reporting.round_report import RoundReport


class ProgressBar:
    """One line at the bottom of the terminal; nothing where there is no terminal."""

    def __init__(self, console: Console, finished_round: int, rounds: int) -> None:
        self._progress = Progress(
            TextColumn("round {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("epsilon {task.fields[epsilon]:.4g}"),
            TextColumn("{task.fields[megabytes]:.1f} MB"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "rounds", total=rounds, completed=finished_round, epsilon=0.0, megabytes=0.0
        )
        self._progress.start()

    def update(self, report: RoundReport, total_bytes: int) -> None:
        """Show one more round."""
        self._progress.update(
            self._task,
            completed=report.server_round,
            epsilon=report.epsilon_server_bound,
            megabytes=total_bytes / 1e6,
        )

    def close(self) -> None:
        """Leave the line as it is."""
        self._progress.stop()
