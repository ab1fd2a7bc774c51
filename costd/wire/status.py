"""What each error is called on the wire. The only such mapping."""

from typing import Final

import grpc

from costd import errors

STATUS: Final[dict[type[errors.CostdError], grpc.StatusCode]] = {
    errors.InvalidAsk: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidPolicy: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    errors.ReservationNotFound: grpc.StatusCode.NOT_FOUND,
    errors.BudgetNotFound: grpc.StatusCode.NOT_FOUND,
    errors.IdReused: grpc.StatusCode.ALREADY_EXISTS,
    errors.ReservationClosed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StillSpending: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleEpoch: grpc.StatusCode.ABORTED,
    errors.LateEnrol: grpc.StatusCode.ABORTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.CoordinatorUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StoreCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.InvariantBroken: grpc.StatusCode.INTERNAL,
}

DETAILS_LENGTH_MAX: Final = 2_000
"""Details travel as a percent-encoded header, and clients refuse headers past 8 KiB."""


def status_of(error: errors.CostdError) -> grpc.StatusCode:
    """Name the gRPC status of an error; the nearest listed ancestor speaks for a subclass."""
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return grpc.StatusCode.INTERNAL


def details_of(error: Exception) -> str:
    """Write an error's message as gRPC details, cut to what a header may hold."""
    text = str(error) or type(error).__name__
    if len(text) <= DETAILS_LENGTH_MAX:
        return text
    return text[: DETAILS_LENGTH_MAX - 1] + "…"
