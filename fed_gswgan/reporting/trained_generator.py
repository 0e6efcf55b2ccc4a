"""Sampler of a run, from its folder alone: no data is needed to draw samples."""

from dataclasses import dataclass
from pathlib import Path

from fed_gswgan.algorithms.base import Sampler
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.reporting.run_folder import Checkpoint, read_run
from fed_gswgan.seeding import SeedStream


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """What a run has come to.

    Attributes:
        sampler: (labels_B int64, seed) -> samples_BCHW in [0, 1].
        spec: of the data set that it was trained for.
        server_round: of the checkpoint.
        config: of the run.
    """

    sampler: Sampler
    spec: DataSpec
    server_round: int
    config: Config


def load_generator(run: Path) -> TrainedGenerator:
    """Read the newest checkpoint of a run.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint yet.
        ValueError: the checkpoint is damaged, or the run was made by an earlier version.
    """
    record = read_run(run)
    config, spec = record.config, record.spec
    tensors, progress = Checkpoint(run).load()
    shared = config.shared
    server = config.algorithm.Server(config.own, spec, SeedStream(shared.seed), shared.rounds)
    server.load_state_dict(tensors)
    return TrainedGenerator(
        sampler=server.sampler(), spec=spec, server_round=progress.server_round, config=config
    )
