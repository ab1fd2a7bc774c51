"""Envoy's question beside an agent's: one ShouldRateLimit, and one Admit of the same ask."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc

from bench.daemon import admission_stub, measured_daemon
from bench.figures import Figure, p50_us, ratios, timed
from bench.workload import Asks, policy_text
from costd.daemon.servers import ENVOY_NAME
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import ratelimit_pb2 as envoy

LABELS: Final = ("project", "team", "user", "agent_type", "run")
RULES: Final = f"""
envoy:
  - id: ask
    domain: llm
    match: {{step: ask}}
    request_id: request
    labels: {{{", ".join(f"{label}: {label}" for label in LABELS)}}}
    task_class: task_class
    model: model
    prompt_tokens: prompt_tokens
    max_output_tokens: max_tokens
"""


class EnvoyAndAdmit:
    """One round: the same asks as an agent sends them and as Envoy does, one at a time."""

    def __init__(self, directory: Path, stack: ExitStack, *, asks_count: int) -> None:
        self._count = asks_count
        daemon = stack.enter_context(measured_daemon(directory / "envoy", policy_text() + RULES))
        channel = stack.enter_context(grpc.insecure_channel(daemon.address))
        self._admit = admission_stub(channel).Admit
        self._ask: Any = channel.unary_unary(
            f"/{ENVOY_NAME}/ShouldRateLimit",
            request_serializer=envoy.RateLimitRequest.SerializeToString,
            response_deserializer=envoy.RateLimitResponse.FromString,
        )
        self._asks = Asks(5)
        self._admits_p50: list[float] = []
        self._asks_p50: list[float] = []
        timed(self._admit, self._asks.wire(asks_count))
        timed(self._ask, map(in_envoys_words, self._asks.wire(asks_count)))

    def round(self) -> None:
        """Measure once, beginning with the other one each round."""
        kinds = [self._measure_admit, self._measure_envoy]
        if len(self._admits_p50) % 2:
            kinds.reverse()
        for measure in kinds:
            measure()

    def _measure_admit(self) -> None:
        self._admits_p50.append(p50_us(timed(self._admit, self._asks.wire(self._count))))

    def _measure_envoy(self) -> None:
        asks = [in_envoys_words(each) for each in self._asks.wire(self._count)]
        self._asks_p50.append(p50_us(timed(self._ask, asks)))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            Figure(
                key="envoy_ask_us_p50",
                what="ShouldRateLimit over the socket, p50",
                unit="µs",
                samples=tuple(self._asks_p50),
                decimals=0,
            ),
            Figure(
                key="envoy_ask_over_admit",
                what="ShouldRateLimit ÷ Admit of the same ask, p50",
                unit="×",
                samples=ratios(self._asks_p50, self._admits_p50),
            ),
        ]


def in_envoys_words(ask: pb.AdmitRequest) -> envoy.RateLimitRequest:
    """Make the descriptor that says what an agent's ask says."""
    said = {
        "step": "ask",
        "request": ask.ask_id,
        **ask.labels,
        "task_class": ask.task_class,
        "model": f"{ask.provider}/{ask.model}",
        "prompt_tokens": str(ask.prompt_tokens),
        "max_tokens": str(ask.max_output_tokens),
    }
    request = envoy.RateLimitRequest(domain="llm")
    descriptor = request.descriptors.add()
    for key, value in said.items():
        descriptor.entries.add(key=key, value=value)
    return request
