"""Answers in the making, and who does their private work: one client alone, or many at once.

A guard's ``answering`` does everything but train and differentiate a critic. It yields that as a
task, once at most, and is sent the sample gradient, or thrown what was raised in its place.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

from torch import Tensor

from fed_gswgan.profiling import timed
from fed_gswgan.training.critic_task import CriticTask, Outcome, carry_out_each

Reply = TypeVar("Reply")
Answering = Generator[CriticTask, Tensor, Reply]
Work = Callable[[Sequence[CriticTask]], Sequence[Outcome]]


def answer_alone(answering: Answering[Reply]) -> Reply:
    """Do the work here and now; return the reply, or raise the refusal."""
    with closing(answering):
        try:
            task = next(answering)
            with timed("critic"):
                (outcome,) = carry_out_each([task])
            _go_on(answering, outcome)
        except StopIteration as end:
            reply: Reply = end.value
            return reply
    raise AssertionError("an answer hands out one task at most")


def answer_together(answerings: Sequence[Answering[Reply]], work: Work) -> list[Reply | Exception]:
    """Let all come to their task, do the work of all, and let each go on with its own outcome.

    Returns:
        Each one's reply, or the exception, such as a refusal, that ended it: nobody else's end.
    """
    answers: dict[int, Reply | Exception] = {}
    tasks: dict[int, CriticTask] = {}

    def advance(position: int, step: Callable[[], CriticTask]) -> None:
        try:
            tasks[position] = step()
        except StopIteration as end:
            answers[position] = end.value
        except Exception as error:
            answers[position] = error

    with ExitStack() as unfinished:
        for position, answering in enumerate(answerings):
            unfinished.enter_context(closing(answering))
            advance(position, partial(next, answering))
        with timed("critic"):
            outcomes = dict(zip(tasks, work(list(tasks.values())), strict=True))
        for position, outcome in outcomes.items():
            advance(position, partial(_go_on, answerings[position], outcome))
    return [answers[position] for position in range(len(answerings))]


def _go_on(answering: Answering[Reply], outcome: Outcome) -> CriticTask:
    """Give what came of the task to whoever handed it out."""
    if isinstance(outcome, Exception):
        return answering.throw(outcome)
    return answering.send(outcome)
