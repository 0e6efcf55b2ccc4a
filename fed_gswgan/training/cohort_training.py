"""The work of a whole cohort at once: a batched operation in place of one for each client.

What a client's critic is trained on and how, and what it answers, is what ``carry_out`` gives it
alone, to rounding: the same images and points of the gradient penalty, the same formula, an Adam of
its own that counts its own steps. Of a feature that is nearly zero, rounding can decide which slope
its leaky ReLU has; from there on that one critic may differ by more.

Shapes: K clients, S critic steps, B batch, C channels, H and W image.
"""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from fed_gswgan.training.critic_task import CriticTask, Outcome, carry_out_each
from fed_gswgan.training.critic_training import draw_batch
from fed_gswgan.training.stacked_critics import StackedCritics

logger = logging.getLogger(__name__)

Steps = tuple[Tensor, ...]  # images_SBCHW, samples_SBCHW, labels_SB, mix_SB


def carry_out_together(tasks: Sequence[CriticTask], device: torch.device) -> list[Outcome]:
    """Return each task's sample gradient, or what the client's own part in it raised.

    Tasks that cannot be stacked, or fail together, are carried out one by one.

    Args:
        tasks: of critics alike, under the same settings, on batches of the same sizes.
        device: where to compute; critics, optimizers and results stay on their own.
    """
    drawn: dict[int, Steps] = {}
    outcomes: dict[int, Outcome] = {}
    for position, task in enumerate(tasks):
        try:
            drawn[position] = _draw_steps(task)
        except Exception as error:
            outcomes[position] = error
    together = [tasks[position] for position in drawn]
    try:
        found: Sequence[Outcome] = _carry_out_stacked(together, list(drawn.values()), device)
    except Exception:
        logger.warning("a cohort's critics are trained one by one", exc_info=True)
        found = carry_out_each(together)
    outcomes |= dict(zip(drawn, found, strict=True))
    return [outcomes[position] for position in range(len(tasks))]


def _carry_out_stacked(
    tasks: Sequence[CriticTask], drawn: Sequence[Steps], device: torch.device
) -> list[Tensor]:
    """Return all sample gradients; no critic is changed before all are there."""
    if not tasks:
        return []
    config = tasks[0].config
    if any(task.config != config for task in tasks):
        raise ValueError("settings must be the same for critics to be trained at once")
    critics = StackedCritics([(task.critic, task.optimizer) for task in tasks], config, device)
    steps_SK = [torch.stack(parts, dim=1).to(device) for parts in zip(*drawn, strict=True)]
    for step in zip(*steps_SK, strict=True):
        critics.step(*step)
    samples_KBCHW = torch.stack([task.samples_BCHW for task in tasks]).to(device)
    labels_KB = torch.stack([task.labels_B for task in tasks]).to(device)
    gradients_KBCHW = critics.sample_gradient(samples_KBCHW, labels_KB).cpu()
    critics.write_back()
    return list(gradients_KBCHW)


def _draw_steps(task: CriticTask) -> Steps:
    """Draw what ``carry_out`` would, and leave the task's randomness as it was."""
    randomness = copy.deepcopy(task.randomness)
    steps = [
        draw_batch(task.shard, task.samples_NBCHW, task.labels_NB, step, randomness)
        for step in range(task.config.critic_steps)
    ]
    return tuple(map(torch.stack, zip(*steps, strict=True)))
