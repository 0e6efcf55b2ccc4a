"""The in-process Grid that trains the critics of a whole cohort at once, which pays on a GPU.

Each client has its own request, guard, ledger and noise, and its reply is made by the code that the
ClientApp calls, in the same order; only the critics' tasks of all are carried out together.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from flwr.app import Context, Message, RecordDict

from client.app import answered
from client.virtual_device import answering_train
from fed_gswgan.device.answering import answer_together
from fed_gswgan.profiling import timed
from fed_gswgan.training.cohort_training import carry_out_together
from fed_gswgan.wire.message_types import TRAIN
from fed_gswgan.wire.release_guard import release_guard
from simulations.in_process_grid import InProcessGrid, answer

AT_ONCE = 64  # clients, so that a large cohort needs no more memory and open files than these do


class VectorizedGrid(InProcessGrid):
    """Answers GS-WGAN's train messages together, and every other message through the app.

    Args:
        client_app: called for the other messages.
        num_nodes: virtual nodes.
        run_config: every context's.
    """

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Answer every message and return their ids; a client's, one after the other in order."""
        message_ids: list[str] = []
        cohort: dict[int, Message] = {}  # by node
        for message in messages:
            node_id = message.metadata.dst_node_id
            joins = message.metadata.message_type == TRAIN and node_id in self._node_ids
            if not joins or node_id in cohort or len(cohort) == AT_ONCE:
                self._answer_together(cohort)
                cohort = {}
            if joins:
                cohort[node_id] = message
                message_ids.append(self._name(message))
            else:
                message_ids += super().push_messages([message])
        self._answer_together(cohort)
        return message_ids

    def _answer_together(self, cohort: Mapping[int, Message]) -> None:
        messages, contexts = list(cohort.values()), [self.context(node_id) for node_id in cohort]
        replies = answer_cohort(messages, contexts)
        for message, context, reply in zip(messages, contexts, replies, strict=True):
            self._replies[message.metadata.message_id] = reply
            self._keep(context)


def answer_cohort(messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
    """Return the replies to train messages of GS-WGAN, each to another client."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answerings = [
        answering_train(message.content, context)
        for message, context in zip(messages, contexts, strict=True)
    ]
    with timed("answer"):
        answers = answer_together(answerings, partial(carry_out_together, device=device))
    return [
        answer(partial(release_guard, call_next=partial(_reply, found)), message, context)
        for message, context, found in zip(messages, contexts, answers, strict=True)
    ]


def _reply(found: RecordDict | Exception, message: Message, context: Context) -> Message:
    """Reply as the app does once it has its answer, or what it raised."""

    def result() -> RecordDict:
        if isinstance(found, Exception):
            raise found
        return found

    return answered(message, result)
