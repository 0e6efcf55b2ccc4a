"""What a run's samples are measured on and stand beside: held-out images, prior, real images."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fed_gswgan.algorithms.base import Sampler
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, WriterSource, spec_of
from fed_gswgan.evaluation.report import HeldOutJudge, held_out_judge
from fed_gswgan.evaluation.samplers import pool_sampler
from fed_gswgan.priors.prior import NONE
from fed_gswgan.reporting.pictures import drawn_for_picture, save_side_by_side
from fed_gswgan.reporting.summary_table import METRICS
from fed_gswgan.seeding import SeedStream

logger = logging.getLogger(__name__)

PRIOR = "the prior alone"
CLIENTS = "real images of clients"  # not private: simulations only
HELD_OUT = "real images, held out"


class Evaluation:
    """Metrics and pictures of a run, none if no samples are asked for.

    Args:
        config: of the run.
        source: whose held-out images judge.
        simulated: whether the clients' images are at hand, for a reference that is not private.
    """

    def __init__(self, config: Config, source: WriterSource, simulated: bool) -> None:
        self._config, self._source, self._simulated = config, source, simulated
        self._samples = config.shared.evaluation_samples

    @cached_property
    def _judge(self) -> HeldOutJudge:
        return held_out_judge(self._source)

    def metrics(self, sampler: Sampler) -> dict[str, Any]:
        """Return the metrics by name."""
        if not self._samples:
            return dict.fromkeys(METRICS)
        try:
            return dict(self._judge.report(sampler, self._samples).to_dict())
        except ValueError as error:  # a generator that diverged; the rest of the summary stands
            logger.error("no metrics: %s", error)
            return {**dict.fromkeys(METRICS), "not_evaluated": str(error)}

    def reference_metrics(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of what the samples are to be compared with, by title."""
        if not self._samples or not self._config.shared.evaluation_references:
            return {}
        return {title: self.metrics(sampler) for title, sampler in self._references.items()}

    def save_picture(self, sampler: Sampler, path: Path) -> None:
        """Draw samples beside those of the prior and beside held-out images, if there are any."""
        if not self._samples:
            return
        held_out, names = self._source.held_out(), self._source.class_names
        found = {"samples": sampler}
        if PRIOR in self._references:
            found[PRIOR] = self._references[PRIOR]
        if len(set(held_out.labels.tolist())) == len(names):
            images, labels = torch.from_numpy(held_out.images), torch.from_numpy(held_out.labels)
            found[HELD_OUT] = pool_sampler(images, labels)
        drawn = {title: drawn_for_picture(of, len(names)) for title, of in found.items()}
        save_side_by_side(drawn, path, names)

    @cached_property
    def _references(self) -> dict[str, Sampler]:
        config = self._config
        found: dict[str, Sampler] = {}
        if getattr(config.own, "prior", NONE) != NONE:
            seeds, spec = SeedStream(config.shared.seed), spec_of(self._source)
            server = config.algorithm.Server(config.own, spec, seeds, config.shared.rounds)
            found[PRIOR] = server.sampler()
        if self._simulated:
            found[CLIENTS] = self._real_images()
        return found

    def _real_images(self) -> Sampler:
        """Return a sampler of the images of as many clients as it takes for the metrics."""
        randomness = SeedStream(0).generator("real images of clients")
        shards: list[ClientDataset] = []
        for writer in randomness.permutation(self._source.writer_ids):
            shards.append(self._source.shard(str(writer)))
            if sum(len(shard.labels) for shard in shards) >= self._samples:
                break
        everything = ClientDataset.merge(shards)
        return pool_sampler(
            torch.from_numpy(everything.images), torch.from_numpy(everything.labels)
        )
