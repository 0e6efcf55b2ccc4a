"""Between a Flower message and the guard's socket: records to a frame, and the answer back."""

from pathlib import Path

from flwr.app import Message, RecordDict

from fed_gswgan.device.guard_client import ask_guard
from fed_gswgan.device.guard_frame import Frame
from fed_gswgan.privacy.refusals import MalformedInput
from fed_gswgan.wire.message_types import REGISTER
from fed_gswgan.wire.record_fields import fields_of, records_of


class Refused(Exception):
    """The guard refused, or failed; the code and the reason are its own."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def registered_id(socket: Path) -> str:
    """Return the client id that the device's owner gave it."""
    return str(_reply(socket, Frame(kind=REGISTER)).config["client-id"])


def relayed(socket: Path, message: Message) -> RecordDict:
    """Return the guard's reply to a request.

    Raises:
        Refused: by the guard.
        MalformedInput: the message does not hold arrays and settings; the guard was not asked.
        GuardUnreachable: no guard answered.
    """
    try:
        arrays, config = fields_of(message.content)
    except (ValueError, TypeError) as error:
        raise MalformedInput(str(error)) from error
    kind = message.metadata.message_type
    reply = _reply(socket, Frame(kind=kind, config=dict(config), arrays=arrays))
    return records_of(reply.arrays, reply.config)


def _reply(socket: Path, request: Frame) -> Frame:
    answer = ask_guard(socket, request)
    if answer.kind == "refusal":
        raise Refused(int(answer.config["code"]), str(answer.config["reason"]))
    if answer.kind != "reply":
        raise RuntimeError("the guard failed; see its own log")
    return answer
