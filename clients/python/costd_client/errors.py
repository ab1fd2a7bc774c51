"""What the client raises: a refusal, no decision at all, or a mistake in the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from costd_client.decision import Decision


class CostdError(Exception):
    """Base of every error of this package; the LLM call must not be made.

    `code` is the gRPC status that the daemon answered with, None where nothing was asked.
    """

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None) -> None:
        super().__init__(message)
        self.code = code


class Denied(CostdError):
    """The daemon decided that the call must not be made; `decision` says all it knows."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(describe_denial(decision))
        self.decision = decision
        self.reason = decision.reason
        self.message = decision.message
        self.binding = decision.binding
        self.would_pass = decision.would_pass
        self.resets_ns = decision.resets_ns
        self.upgrade_text = decision.upgrade_text
        self.upgrade_url = decision.upgrade_url

    def __reduce__(self) -> tuple[type[Denied], tuple[Decision]]:
        return type(self), (self.decision,)


class Stopped(CostdError):
    """A stream was stopped part of the way, because the daemon would not extend its hold."""


class Unavailable(CostdError):
    """No decision could be had, and the fail mode does not let the call go without one."""


class OutboxFull(Unavailable):
    """Too many calls wait to be recorded; another one could not be accounted for."""


class InvalidAsk(CostdError):
    """A request breaks a rule of its fields; the message names the field."""


class Unauthenticated(CostdError):
    """The caller did not say who it is."""


class NotPermitted(CostdError):
    """A caller may not claim that class or label."""


class ReservationNotFound(CostdError):
    """No reservation has this id, or it was forgotten after its retention."""


class IdReused(CostdError):
    """The id was used before with other fields; the message names the first that differs."""


class ReservationClosed(CostdError):
    """The reservation was closed in a way that forbids this."""


class Overloaded(CostdError):
    """The daemon itself is too busy, also after retries."""


class DaemonFailed(CostdError):
    """The daemon could not do its work: a damaged store, or a bug."""


ERRORS_BY_STATUS: dict[grpc.StatusCode, type[CostdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidAsk,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.NOT_FOUND: ReservationNotFound,
    grpc.StatusCode.ALREADY_EXISTS: IdReused,
    grpc.StatusCode.FAILED_PRECONDITION: ReservationClosed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
}


_OLDER = (
    "A daemon that is older than this client is to be upgraded; operators' and coordinators' "
    "addresses are not for agents"
)


def error_from_status(code: grpc.StatusCode, details: str) -> CostdError:
    """Name the error that a gRPC status stands for."""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        details = f"whoever is at the daemon's address does not offer this: {details}. {_OLDER}"
    return ERRORS_BY_STATUS.get(code, DaemonFailed)(details or code.name, code=code)


def describe_denial(decision: Decision) -> str:
    """Say in one line what was refused, by which rule, and what would pass."""
    text = f"{decision.reason.name}: {decision.message or 'the call was refused'}"
    binding = decision.binding
    if binding is not None:
        text += f" [{binding.kind} {binding.rule}{f' {binding.key}' if binding.key else ''}]"
    if decision.would_pass:
        cheaper = ", ".join(
            f"{one.provider}/{one.model}" if one.provider else one.model or one.tier
            for one in decision.would_pass
        )
        text += f"; would pass: {cheaper}"
    if decision.upgrade_text:
        text += f"; {decision.upgrade_text} {decision.upgrade_url}".rstrip()
    return text
