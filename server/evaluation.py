"""What a run's samples are measured on and stand beside: held-out images, prior, real images."""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed_gswgan.algorithms.base import Sampler
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import ClientDataset, LabelledImages, WriterSource, spec_of
from fed_gswgan.data.partition import partitions_of
from fed_gswgan.evaluation.distances import nearest_distances
from fed_gswgan.evaluation.report import HeldOutJudge, held_out_judge, in_greys_of
from fed_gswgan.evaluation.samplers import pool_sampler
from fed_gswgan.priors.prior import NONE
from fed_gswgan.progress import steps
from fed_gswgan.reporting.pictures import drawn_for_picture, save_side_by_side
from fed_gswgan.reporting.summary_table import METRICS
from fed_gswgan.seeding import SeedStream

logger = logging.getLogger(__name__)

PRIOR = "the prior alone"
CLIENTS = "real images of clients"  # not private: simulations only
SAMPLES, HELD_OUT = "samples", "real images, held out"
COMPARED = 1000  # samples, with the nearest training image
MOST_CLIENT_IMAGES = 100_000


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
        if not self._compared:
            return {}
        found = {PRIOR: self._prior} if self._prior else {}
        if self._simulated:
            found[CLIENTS] = pool_sampler(*_tensors(self._clients))
        return {title: self.metrics(sampler) for title, sampler in found.items()}

    def nearest_training_images(self, sampler: Sampler) -> dict[str, dict[str, float]]:
        """Return how far samples, and held-out images, are from the nearest image of a client.

        Where samples are much nearer than images of strangers, the generator repeats what it saw.
        It is read off the clients' images without noise: simulations only.

        Returns:
            Median and first percentile of the L2 distances of pixels, by title.
        """
        if not self._compared or not self._simulated:
            return {}
        held_out, labels = _tensors(self._source.held_out())
        rows = torch.from_numpy(SeedStream(0).generator("strangers").permutation(len(labels)))
        rows = rows[:COMPARED]
        drawn = {SAMPLES: in_greys_of(held_out, sampler(labels[rows], 0)), HELD_OUT: held_out[rows]}
        clients, _ = _tensors(self._clients)
        found = {}
        for title, images in drawn.items():
            distances = nearest_distances(images, clients)
            found[title] = {
                "median": float(distances.median()),
                "first_percentile": float(distances.quantile(0.01)),
            }
        return found

    def save_picture(self, sampler: Sampler, path: Path) -> None:
        """Draw samples beside those of the prior and beside held-out images, if there are any."""
        if not self._samples:
            return
        names = self._source.class_names
        found = {SAMPLES: sampler} | ({PRIOR: self._prior} if self._prior else {})
        images, labels = _tensors(self._source.held_out())
        if len(set(labels.tolist())) == len(names):
            found[HELD_OUT] = pool_sampler(images, labels)
        drawn = {title: drawn_for_picture(of, len(names)) for title, of in found.items()}
        save_side_by_side(drawn, path, names)

    @property
    def _compared(self) -> bool:
        return self._samples > 0 and self._config.shared.evaluation_references

    @cached_property
    def _prior(self) -> Sampler | None:
        """What the generator draws before round 1; None if it begins with noise."""
        config = self._config
        if getattr(config.own, "prior", NONE) == NONE:
            return None
        seeds, spec = SeedStream(config.shared.seed), spec_of(self._source)
        server = config.algorithm.Server(config.own, spec, seeds, config.shared.rounds)
        return server.sampler()

    @cached_property
    def _clients(self) -> ClientDataset:
        """The images of all clients, or of as many as give so many images."""
        partitions = partitions_of(self._source, self._config.shared)
        writers = [writer for of_client in partitions.shards for writer in of_client]
        shards: list[ClientDataset] = []
        for writer in steps("reading clients' images", writers):
            shards.append(self._source.shard(writer))
            if sum(len(shard.labels) for shard in shards) >= MOST_CLIENT_IMAGES:
                break
        return ClientDataset.merge(shards)


def _tensors(images: ClientDataset | LabelledImages) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.images), torch.from_numpy(images.labels)
