"""The generator of a run, from its folder alone: no data is needed to draw samples."""

from dataclasses import dataclass
from pathlib import Path

from fed_gswgan.config import Config
from fed_gswgan.data.characters import IMAGE_SHAPE
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.evaluation.samplers import Sampler
from fed_gswgan.models.registry import build_generator
from fed_gswgan.reporting.checkpoint import Checkpoint
from fed_gswgan.reporting.run_folder import config_of_run
from fed_gswgan.training.sampling import sampler_of


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """What a run has come to.

    Attributes:
        sampler: of the generator's moving average.
        num_classes: it was trained for.
        server_round: of the checkpoint.
        config: of the run.
    """

    sampler: Sampler
    num_classes: int
    server_round: int
    config: Config


def load_generator(run: Path) -> TrainedGenerator:
    """Read the newest checkpoint of a run.

    Raises:
        FileNotFoundError: the folder holds no run, or no checkpoint yet.
        ValueError: the checkpoint is damaged.
    """
    config = Config.from_run_config(config_of_run(run))
    checkpoint = Checkpoint(run)
    weights = checkpoint.ema_weights()
    num_classes = len(weights["class_embedding.weight"])
    generator = build_generator(config.generator, DataSpec(IMAGE_SHAPE, num_classes), seed=0)
    generator.load_state_dict(weights)
    return TrainedGenerator(
        sampler=sampler_of(generator.eval(), config.generator),
        num_classes=num_classes,
        server_round=checkpoint.progress().server_round,
        config=config,
    )
