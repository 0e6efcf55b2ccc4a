"""Record of a run as it goes: log, rounds.jsonl, TensorBoard, pictures, checkpoints, the bar."""

from dataclasses import replace
from pathlib import Path

from fed_gswgan.algorithms.base import Server
from fed_gswgan.config import RunSettings
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.progress import tell
from fed_gswgan.reporting.pictures import sample_grid, save_grid
from fed_gswgan.reporting.round_log import (
    ByteMeter,
    RoundLog,
    RoundReport,
    TensorBoardWriter,
    bytes_by_client,
)
from fed_gswgan.reporting.run_folder import Checkpoint, Progress
from fed_gswgan.reporting.summary_table import METRICS
from server.evaluation import Evaluation

REPLY_KINDS = ("received", "failed", "malformed", "missing")


class RunRecorder:
    """Everything that is written after a round; starts from the folder's checkpoint, if any.

    Args:
        folder: of the run.
        settings: how often pictures and checkpoints are written.
        server: the algorithm's server half, which is restored from the checkpoint.
        spec: of the data set.
        evaluation: of samples, every so many rounds.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        server: Server,
        spec: DataSpec,
        evaluation: Evaluation,
    ) -> None:
        self.evaluation = evaluation
        self.folder, self._settings, self._server, self._spec = folder, settings, server, spec
        self.byte_meter = ByteMeter()
        self.finished_round = self.checkpoint_round = 0
        self.finished, self.stopped = False, ""
        self.seconds = 0.0
        self.replies = dict.fromkeys(REPLY_KINDS, 0)
        self._checkpoint = Checkpoint(folder, spec.class_names)
        if self._checkpoint.exists():
            self._restore()
        self._round_log = RoundLog(folder, self.finished_round, settings.rounds)
        self.tensorboard = TensorBoardWriter(folder, self.finished_round)
        tell("rounds", self.finished_round, settings.rounds)

    def on_round(self, report: RoundReport) -> None:
        """Write one round down."""
        self.finished_round = report.server_round
        self.finished, self.stopped = False, report.stop
        self.seconds += report.round_seconds
        for kind in REPLY_KINDS:
            self.replies[kind] += getattr(report, kind)
        self.byte_meter.add(report)
        every = self._settings.evaluate_every
        if every and report.server_round % every == 0:
            found = self.evaluation.metrics(self._server.sampler())
            numbers = {name: found[name] for name in METRICS if found.get(name) is not None}
            report = replace(report, evaluation=numbers)
            self.tensorboard.write_metrics(numbers, report.server_round)
        downlink, uplink = self.byte_meter.downlink_total, self.byte_meter.uplink_total
        self._round_log.write(report)
        self.tensorboard.write(report, downlink, uplink)
        tell("rounds", report.server_round, self._settings.rounds)
        if report.server_round % self._settings.samples_every == 0:
            self.picture()
        if report.server_round % self._settings.checkpoint_every == 0:
            self.save()

    def bytes_by_client(self) -> dict[str, list[int]]:
        """Return downlink and uplink of every client that was asked, over all rounds."""
        return bytes_by_client(self.folder)

    def picture(self) -> Path:
        """Draw a grid of samples, a row a class, and return its path."""
        grid = sample_grid(self._server.sampler(), self._spec.num_classes, self._settings.seed)
        path = self.folder / "samples" / f"round-{self.finished_round:06d}.png"
        save_grid(grid, path, self._spec.class_names)
        self.tensorboard.write_samples(grid, self.finished_round)
        return path

    def save(self) -> None:
        """Write a checkpoint."""
        progress = Progress(
            server_round=self.finished_round,
            seconds=self.seconds,
            replies=self.replies,
            byte_meter=self.byte_meter.state_dict(),
            stopped=self.stopped,
            finished=self.finished,
        )
        self._checkpoint.save(self._server.state_dict(), progress)
        self.checkpoint_round = self.finished_round

    def close(self) -> None:
        """Save what is not saved yet and close the files."""
        if self.finished_round > self.checkpoint_round:
            self.save()
        self._round_log.close()
        self.tensorboard.close()

    def _restore(self) -> None:
        tensors, progress = self._checkpoint.load()
        try:
            self._server.load_state_dict(tensors)
        except (RuntimeError, KeyError) as error:
            raise ValueError(
                f"{self.folder}: the checkpoint is of another model: {error}"
            ) from error
        self.finished_round = self.checkpoint_round = progress.server_round
        self.seconds = progress.seconds
        self.finished, self.stopped = progress.finished, progress.stopped
        self.replies = dict(progress.replies)
        self.byte_meter.load_state_dict(progress.byte_meter)
