"""The Prometheus endpoint of a host, from its start to its stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from costd import __version__
from costd.endpoint import Endpoint
from costd.serving.sockets import CannotListen
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics


@asynccontextmanager
async def metered(
    name: str, endpoint: Endpoint | None, log: Log, exports: Exports = NO_EXPORTS
) -> AsyncIterator[Metrics]:
    """Serve a host's metrics while the block runs, at its endpoint and wherever they are exported.

    Errors: CannotListen if the address cannot be had.
    """
    metrics = Metrics(version=__version__, name=name, exports=exports)
    try:
        if endpoint is not None:
            try:
                address = metrics.listen(endpoint.host, endpoint.port)
            except OSError as error:
                raise CannotListen(
                    f"metrics_listen: {endpoint} cannot be bound ({error.strerror}); name "
                    "another address, or `off`"
                ) from error
            log.info("metrics_listening", address=address)
            if not endpoint.is_loopback:
                log.warning("listening_insecure", metrics_listen=address)
        yield metrics
    finally:
        metrics.close()
