"""What a run's samples are measured on and stand beside: held-out images, prior, real images."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
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
from fed_gswgan.evaluation.report import EVALUATION_SEED, HeldOutJudge, in_greys_of
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
    def _held_out(self) -> tuple[Tensor, Tensor]:
        return _tensors(self._source.held_out())

    @cached_property
    def _judge(self) -> HeldOutJudge:
        return HeldOutJudge(*self._held_out, len(self._source.class_names), EVALUATION_SEED)

    def metrics(self, sampler: Sampler) -> dict[str, Any]:
        """Return the metrics by name."""
        if not self._samples:
            return dict.fromkeys(METRICS)
        try:
            return dict(self._judge.report(sampler, self._samples).to_dict())
        except Exception as error:  # the rest of the summary stands, whatever failed
            logger.error("no metrics: %s", _said(error))
            return {**dict.fromkeys(METRICS), "not_evaluated": _said(error)}

    def reference_metrics(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of what the samples are to be compared with, by title."""
        return {title: self.metrics(sampler) for title, sampler in self.references().items()}

    def references(self) -> dict[str, Sampler]:
        """Return samplers of what the samples are to be compared with, by title.

        The images of the clients are among them in simulations only: they are not private.
        """
        found: dict[str, Sampler] = {}
        if self._compared and self._prior:
            found[PRIOR] = self._prior
        if self._compared and self._simulated:
            with or_without("clients' images to compare with"):
                found[CLIENTS] = pool_sampler(*self._clients)
        return found

    def nearest_training_images(self, sampler: Sampler) -> dict[str, dict[str, float]]:
        """Return how far samples, and held-out images, are from the nearest image of a client.

        Where samples are much nearer than images of strangers, the generator repeats what it saw.
        It is read off the clients' images without noise: simulations only.

        Returns:
            Median and first percentile of the L2 distances of pixels, by title; nothing where there
            are no images to compare.
        """
        found: dict[str, dict[str, float]] = {}
        if not self._compared or not self._simulated:
            return found
        with or_without("nearest training images"):
            held_out, labels = self._held_out
            clients, _ = self._clients
            rows = torch.from_numpy(SeedStream(0).generator("strangers").permutation(len(labels)))
            rows = rows[:COMPARED]
            samples = in_greys_of(held_out, sampler(labels[rows], 0))
            for title, images in ((SAMPLES, samples), (HELD_OUT, held_out[rows])):
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
        with or_without("picture side by side"):
            names = self._source.class_names
            found = {SAMPLES: sampler} | ({PRIOR: self._prior} if self._prior else {})
            images, labels = self._held_out
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
    def _clients(self) -> tuple[Tensor, Tensor]:
        """The images of all clients, or of as many as give so many images, and their labels."""
        writers = partitions_of(self._source, self._config.shared).all_writers
        shards, images = [], 0
        for writer in steps("reading clients' images", writers):
            shards.append(self._source.shard(writer))
            images += len(shards[-1].labels)
            if images >= MOST_CLIENT_IMAGES:
                break
        if not images:
            raise ValueError("the clients hold no image")
        return _tensors(ClientDataset.merge(shards))


@contextmanager
def or_without(what: str) -> Iterator[None]:
    """Go on without what the block makes if that fails; a run is not lost by it."""
    try:
        yield
    except Exception as error:
        logger.error("no %s: %s", what, _said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)


def _tensors(images: ClientDataset | LabelledImages) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.images), torch.from_numpy(images.labels)
