"""A run as TensorBoard shows it: scalars each round, a grid of samples now and then."""

from pathlib import Path

from torch import Tensor

from fed_gswgan.reporting.round_report import RoundReport


class TensorBoardWriter:
    """Writes ``area/name`` scalars and images; a resumed run overwrites the rounds it repeats."""

    def __init__(self, run_folder: Path, finished_round: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(  # type: ignore[no-untyped-call]
            str(run_folder / "tensorboard"), purge_step=finished_round + 1
        )
        self._downlink = self._uplink = 0

    def write(self, report: RoundReport, downlink_total: int, uplink_total: int) -> None:
        """Write one round's scalars."""
        scalars = {
            "privacy/epsilon_server_bound": report.epsilon_server_bound,
            "bytes/downlink_total": downlink_total,
            "bytes/uplink_total": uplink_total,
            "cohort/asked": report.asked,
            "cohort/replies": report.received,
            "cohort/failed": report.failed + report.malformed + report.missing,
            **{f"algorithm/{name}": value for name, value in report.metrics.items()},
            "time/round_seconds": report.round_seconds,
        }
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, report.server_round)  # type: ignore[no-untyped-call]

    def write_metrics(self, metrics: dict[str, float], server_round: int) -> None:
        """Write the metrics at the end of a run."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"metrics/{name}", value, server_round)  # type: ignore[no-untyped-call]

    def write_samples(self, grid_CHW: Tensor, server_round: int) -> None:
        """Write a grid of samples, float32 in [0, 1]."""
        self._writer.add_image("samples/by_class", grid_CHW, server_round)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Bring everything to disk."""
        self._writer.close()  # type: ignore[no-untyped-call]
