"""Flower's SuperLink, which reads nothing from a peer that it does not know.

    Usage: python -m fed_gswgan.wire.superlink ARGUMENTS, those of ``flower-superlink``

Flower 1.39 looks whose call it is after it has read the call's body, of up to 2 GB. With
``--enable-supernode-auth`` this one decides by the call's header: without the signature of a
registered key the call ends, its body unread. Of a registered device it takes what a reply may
have. Files that it makes (its database, the run) are its own account's alone.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.server.superlink.fleet.grpc_rere.node_auth_server_interceptor import (
    NodeAuthServerInterceptor,
)
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.utils import get_metadata_bytes

from fed_gswgan.wire.messages import LARGEST_REQUEST_BYTES

LARGEST_MESSAGE_BYTES = LARGEST_REQUEST_BYTES + 2**20
# Keys that are not known from an earlier call are looked up so often; a device tries again.
LOOKUPS_A_SECOND = 20


class EarlyNodeAuth(NodeAuthServerInterceptor):
    """Refuses a call whose header is not signed by a registered key, and reads no body of it."""

    def __init__(self, state_factory: LinkStateFactory) -> None:
        super().__init__(state_factory)
        self._known: set[bytes] = set()
        self._second, self._lookups = 0, 0

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """Return the call's handler, or one that ends it."""
        passed = False

        def go_on(details: grpc.HandlerCallDetails) -> Any:
            nonlocal passed
            passed = True
            return continuation(details)

        metadata = handler_call_details.invocation_metadata
        key = get_metadata_bytes(metadata, PUBLIC_KEY_HEADER)
        if not key or not self._is_registered(key):
            return UNREAD
        try:
            handler = super().intercept_service(go_on, handler_call_details)
        except (ValueError, TypeError):  # a time or signature that is none
            return UNREAD
        return handler if passed else UNREAD

    def _is_registered(self, key: bytes) -> bool:
        if key not in self._known and not self._may_look_up():
            return False
        if self.state_factory.state().get_node_id_by_public_key(key) is None:
            self._known.discard(key)
            return False
        self._known.add(key)
        return True

    def _may_look_up(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lookups = second, 0
        self._lookups += 1
        return self._lookups <= LOOKUPS_A_SECOND


def _end(_requests: Any, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "not a registered device")


# A handler of a stream of requests need not read one before it ends the call.
UNREAD = grpc.stream_unary_rpc_method_handler(_end)


def main() -> None:
    """Run the SuperLink until it is told to end."""
    os.umask(0o077)
    flower = importlib.import_module("flwr.superlink.cli.flower_superlink")
    settings = vars(flower)
    settings["GRPC_MAX_MESSAGE_LENGTH"] = LARGEST_MESSAGE_BYTES
    if "--enable-supernode-auth" in sys.argv:
        settings["NodeAuthServerInterceptor"] = EarlyNodeAuth
    flower.flower_superlink()


if __name__ == "__main__":
    main()
