"""What tracing costs an Admit: where it is off, and where every call has a span."""

from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from types import CoroutineType
from typing import Any, NamedTuple

import structlog

from bench.daemon import asking, measured_daemon
from bench.figures import Figure, p50_us, ratios, timed
from bench.workload import Asks, open_ledger
from costd.clock import ticks_ns
from costd.daemon.admission import AdmissionService
from costd.daemon.servers import ADMISSION
from costd.serving.calls import CallFigures, Calls, caller_of
from costd.store.rocks import RocksStore
from costd.telemetry.histogram import Durations
from costd.testing.collector import Collector
from costd.wire.pb import admission_pb2 as pb

Handle = Callable[[bytes, Any], Coroutine[Any, Any, bytes]]
ADMIT = "Admit"


class Method(NamedTuple):
    """What gRPC asks its handlers by."""

    method: str


class Context:
    """What a handler reads of a call that is not traced."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what every client sends."""
        return (("costd-caller", "bench"), ("user-agent", "grpc-python"))


class TracingOff:
    """One round: Admit's handler as it is without OTEL_*, and one that knows no tracing at all."""

    def __init__(self, directory: Path, stack: ExitStack, *, asks_count: int) -> None:
        self._count = asks_count
        self._context = Context()
        self._asks = Asks(5)
        self._handles: dict[str, Handle] = {}
        for name, make in (("off", _as_served), ("none", _bare)):
            store = RocksStore(directory / f"tracing-{name}")
            stack.callback(store.close)
            self._handles[name] = make(AdmissionService(open_ledger(store)))
        self.p50: dict[str, list[float]] = {name: [] for name in self._handles}
        for name in self._handles:
            self._timed(name)

    def round(self) -> None:
        """Measure once, the order changing from round to round."""
        names = sorted(self._handles, reverse=bool(len(self.p50["off"]) % 2))
        for name in names:
            self.p50[name].append(p50_us(self._timed(name)))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="otel_off_over_none",
                what="Admit's handler without OTEL_* ÷ one that knows no tracing, p50",
                unit="×",
                samples=ratios(self.p50["off"], self.p50["none"]),
                target=1.05,
            )
        ]

    def _timed(self, name: str) -> list[int]:
        handle, context = self._handles[name], self._context
        raws = [ask.SerializeToString() for ask in self._asks.wire(self._count)]
        return timed(lambda raw: _ended(handle(raw, context)), raws)


class TracingOn:
    """One round: Admit to a daemon that exports all it can, and to one without OTEL_*."""

    def __init__(self, directory: Path, stack: ExitStack, *, asks_count: int) -> None:
        self._count = asks_count
        collector = stack.enter_context(Collector())
        self._stubs: dict[str, Any] = {}
        for name in ("off", "on"):
            daemon = measured_daemon(directory / f"traced-{name}")
            if name == "on":
                daemon.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
            self._stubs[name] = stack.enter_context(asking(stack.enter_context(daemon)))
        self._asks = Asks(6)
        self.p50: dict[str, list[float]] = {name: [] for name in self._stubs}
        for stub in self._stubs.values():
            timed(stub.Admit, self._asks.wire(asks_count))

    def round(self) -> None:
        """Measure once, the order changing from round to round."""
        for name in sorted(self._stubs, reverse=bool(len(self.p50["off"]) % 2)):
            self.p50[name].append(
                p50_us(timed(self._stubs[name].Admit, self._asks.wire(self._count)))
            )

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="otel_on_over_off",
                what="Admit over the socket, every call a span and exported ÷ without OTEL_*, p50",
                unit="×",
                samples=ratios(self.p50["on"], self.p50["off"]),
            )
        ]


def _as_served(service: AdmissionService) -> Handle:
    """Take the handler that a daemon registers."""
    calls = Calls(figures=CallFigures(), log=structlog.get_logger())
    found = calls.handlers(ADMISSION, service).service(
        Method(f"/{ADMISSION.full_name}/{ADMIT}")  # type: ignore[arg-type]
    )
    assert found is not None
    handle: Handle = found.unary_unary
    return handle


def _bare(service: AdmissionService) -> Handle:
    """Write the same steps as `Calls` does, with nothing around them."""
    figures, parse = CallFigures(), pb.AdmitRequest.FromString
    observe = figures.durations.setdefault(ADMIT, Durations()).observe
    respond = service.Admit

    async def handle(raw: bytes, context: Any) -> bytes:
        started_ns = ticks_ns()
        figures.open_count += 1
        try:
            request, caller = parse(raw), caller_of(context)
            answer: Any = respond(request, caller)
            if answer.__class__ is CoroutineType:
                answer = await answer
            reply: bytes = answer.SerializeToString()
        finally:
            figures.open_count -= 1
            observe(ticks_ns() - started_ns)
        return reply

    return handle


def _ended(call: Coroutine[Any, Any, bytes]) -> bytes:
    """Run a call that has nothing to wait for."""
    try:
        call.send(None)
    except StopIteration as done:
        reply: bytes = done.value
        return reply
    raise AssertionError("nothing here waits")
