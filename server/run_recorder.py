"""Writes a run down as it goes: log, rounds.jsonl, TensorBoard, pictures, checkpoints, the bar."""

from pathlib import Path

from rich.console import Console

from fed_gswgan.config import Config
from fed_gswgan.reporting.checkpoint import Checkpoint, Progress
from fed_gswgan.reporting.progress_bar import ProgressBar
from fed_gswgan.reporting.round_log import RoundLog, bytes_by_client
from fed_gswgan.reporting.round_profile import RoundProfile
from fed_gswgan.reporting.round_report import RoundReport
from fed_gswgan.reporting.sample_grid import sample_grid, save_grid
from fed_gswgan.reporting.tensorboard_writer import TensorBoardWriter
from fed_gswgan.training.generator_trainer import GeneratorTrainer
from fed_gswgan.training.sampling import sampler_of
from fed_gswgan.wire.byte_meter import ByteMeter

REPLY_KINDS = ("received", "failed", "malformed", "missing")


class RunRecorder:
    """All that is written after a round; starts from the folder's checkpoint if it has one."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        trainer: GeneratorTrainer,
        byte_meter: ByteMeter,
        num_classes: int,
        console: Console,
    ) -> None:
        self.folder = folder
        self.config = config
        self.trainer = trainer
        self.byte_meter = byte_meter
        self.num_classes = num_classes
        self.finished_round = self.checkpoint_round = 0
        self.seconds = 0.0
        self.replies = dict.fromkeys(REPLY_KINDS, 0)
        self._checkpoint = Checkpoint(folder)
        if self._checkpoint.exists():
            self._restore(self._checkpoint.load(trainer))
        self._round_log = RoundLog(folder, self.finished_round)
        self.tensorboard = TensorBoardWriter(folder, self.finished_round)
        self.profile = RoundProfile.asked_for()
        self._bar = ProgressBar(console, self.finished_round, config.run.rounds)

    def on_round(self, report: RoundReport) -> None:
        """Write one round down."""
        self.finished_round = report.server_round
        self.seconds += report.round_seconds
        for kind in REPLY_KINDS:
            self.replies[kind] += getattr(report, kind)
        downlink, uplink = self.byte_meter.downlink_total, self.byte_meter.uplink_total
        self._round_log.write(report)
        self.tensorboard.write(report, downlink, uplink)
        if self.profile:
            seconds = self.profile.end_round(report.round_seconds)
            self.tensorboard.write_profile(seconds, report.server_round)
        self._bar.update(report, downlink + uplink)
        if report.server_round % self.config.run.samples_every == 0:
            self.picture()
        if report.server_round % self.config.run.checkpoint_every == 0:
            self._save()

    def bytes_by_client(self) -> dict[str, list[int]]:
        """Return downlink and uplink of every client who was asked, over all rounds."""
        return bytes_by_client(self.folder)

    def picture(self) -> Path:
        """Draw a grid of samples of the EMA generator, a row a class, and return its path."""
        sampler = sampler_of(self.trainer.ema_generator, self.config.generator)
        grid = sample_grid(sampler, self.num_classes, self.config.run.seed)
        path = self.folder / "samples" / f"round-{self.finished_round:06d}.png"
        save_grid(grid, path)
        self.tensorboard.write_samples(grid, self.finished_round)
        return path

    def close(self) -> None:
        """Save what is not saved yet and close the files."""
        if self.finished_round > self.checkpoint_round:
            self._save()
        self._round_log.close()
        self.tensorboard.close()
        self._bar.close()

    def _save(self) -> None:
        progress = Progress(
            server_round=self.finished_round,
            seconds=self.seconds,
            replies=self.replies,
            byte_meter=self.byte_meter.state_dict(),
        )
        self._checkpoint.save(self.trainer, progress)
        self.checkpoint_round = self.finished_round

    def _restore(self, progress: Progress) -> None:
        self.finished_round = self.checkpoint_round = progress.server_round
        self.seconds = progress.seconds
        self.replies = dict(progress.replies)
        self.byte_meter.load_state_dict(progress.byte_meter)
