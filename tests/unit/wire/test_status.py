import grpc
import pytest

from costd import errors
from costd.wire.status import DETAILS_LENGTH_MAX, STATUS, details_of, status_of


def every_error(kind=errors.CostdError):
    for child in kind.__subclasses__():
        yield child
        yield from every_error(child)


@pytest.mark.parametrize("kind", [kind for kind in every_error() if "costd" in kind.__module__])
def test_every_error_has_a_status_of_its_own(kind):
    assert kind in STATUS


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidAsk, "INVALID_ARGUMENT"),
        (errors.InvalidPolicy, "INVALID_ARGUMENT"),
        (errors.Unauthenticated, "UNAUTHENTICATED"),
        (errors.NotPermitted, "PERMISSION_DENIED"),
        (errors.ReservationNotFound, "NOT_FOUND"),
        (errors.BudgetNotFound, "NOT_FOUND"),
        (errors.IdReused, "ALREADY_EXISTS"),
        (errors.ReservationClosed, "FAILED_PRECONDITION"),
        (errors.StillSpending, "FAILED_PRECONDITION"),
        (errors.Overloaded, "RESOURCE_EXHAUSTED"),
        (errors.NotReady, "UNAVAILABLE"),
        (errors.StoreUnavailable, "UNAVAILABLE"),
        (errors.StoreCorrupt, "DATA_LOSS"),
        (errors.InvariantBroken, "INTERNAL"),
    ],
)
def test_statuses_are_those_of_the_design(error, status):
    assert status_of(error("what, where, what to do")).name == status


@pytest.mark.parametrize("kind", list(STATUS))
def test_a_client_may_retry_exactly_what_its_error_says(kind):
    retried = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert (STATUS[kind] in retried) is kind.retryable


def test_a_subclass_without_a_status_has_its_ancestors():
    class DiskFull(errors.StoreUnavailable):
        pass

    assert status_of(DiskFull("no space")) is grpc.StatusCode.UNAVAILABLE


def test_an_error_nobody_listed_is_internal():
    assert status_of(errors.CostdError("?")) is grpc.StatusCode.INTERNAL


def test_details_carry_the_message_and_fit_a_header():
    assert details_of(errors.InvalidAsk("labels: too many")) == "labels: too many"
    assert details_of(errors.InvalidAsk()) == "InvalidAsk"
    long = details_of(errors.InvalidAsk("x" * 10_000))
    assert len(long) == DETAILS_LENGTH_MAX
    assert long.endswith("…")
