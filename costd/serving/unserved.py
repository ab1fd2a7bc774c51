"""What a call is told that nobody here serves: who is of the wrong version, or asked elsewhere."""

from collections.abc import AsyncIterator, Collection
from typing import Any, Final

import grpc

from costd import __version__

OURS: Final = "costd."
"""Begins the names of our services, of this release and of later ones."""

PATH_LENGTH_MAX: Final = 200
"""Of what is repeated to whoever asked."""


class Unserved(grpc.GenericRpcHandler):
    """Answers UNIMPLEMENTED with a sentence, where gRPC says "Method not found!".

    Shape:   to be asked last; `services` are those that are served beside it.
    """

    def __init__(self, program: str, services: Collection[str]) -> None:
        self._program = program
        self._services = services

    def service(self, handler_call_details: Any) -> Any:
        """Take every call, whether its method streams or not."""
        said = self._said(handler_call_details.method)

        async def refuse(
            _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
        ) -> AsyncIterator[bytes]:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, said)
            yield b""  # never comes; it makes this a stream

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _said(self, path: str) -> str:
        path = path[:PATH_LENGTH_MAX]
        service, _, method = path.strip("/").rpartition("/")
        this = f"this {self._program} (costd {__version__})"
        if service in self._services:
            return (
                f"{this} has no {service}/{method}: whoever asks is of a newer release; upgrade "
                f"the {self._program}, or go on without"
            )
        if service.startswith(OURS):
            return (
                f"{service} is not served at this address of {this}: admission, control and fleet "
                "have addresses of their own; or whoever asks is of a newer release"
            )
        return f"{path!a} is nothing that {this} serves"
