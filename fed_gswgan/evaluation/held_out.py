"""The metrics of a generator on the images that no client of a federation holds."""

import torch

from fed_gswgan.data.writer_source import WriterSource
from fed_gswgan.evaluation.evaluate import EvaluationReport, evaluate
from fed_gswgan.evaluation.sampler import Sampler

# Constant, so that every run on a data set is judged by the same classifier.
EVALUATION_SEED = 0


def evaluate_on_held_out(
    sampler: Sampler, source: WriterSource, sample_count: int, seed: int = EVALUATION_SEED
) -> EvaluationReport:
    """Measure a generator as ``evaluate`` does, on the source's held-out writers.

    Args:
        sampler: see ``Sampler``.
        source: of the people that the generator was trained on.
        sample_count: of each draw, at least 2.
        seed: of the metrics, no part of the run.
    """
    held_out = source.held_out()
    return evaluate(
        sampler,
        torch.from_numpy(held_out.images),
        torch.from_numpy(held_out.labels),
        len(source.class_names),
        sample_count,
        seed,
    )
