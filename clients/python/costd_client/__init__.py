"""Ask costd before each LLM call, and tell it afterwards what the call cost."""

from costd_client.call import AsyncCall, Call
from costd_client.client import AsyncClient, Client
from costd_client.context import labels
from costd_client.decision import Decision, Outcome, Reason, Settlement, Source, Verdict
from costd_client.errors import (
    CostdError,
    DaemonFailed,
    Denied,
    IdReused,
    InvalidAsk,
    NotPermitted,
    OutboxFull,
    Overloaded,
    ReservationClosed,
    ReservationNotFound,
    Stopped,
    Unauthenticated,
    Unavailable,
)
from costd_client.estimate import estimate
from costd_client.fail_mode import FailMode
from costd_client.fields import AskFields
from costd_client.trace import trace_attributes

__version__ = "0.1.0"

__all__ = [
    "AskFields",
    "AsyncCall",
    "AsyncClient",
    "Call",
    "Client",
    "CostdError",
    "DaemonFailed",
    "Decision",
    "Denied",
    "FailMode",
    "IdReused",
    "InvalidAsk",
    "NotPermitted",
    "OutboxFull",
    "Outcome",
    "Overloaded",
    "Reason",
    "ReservationClosed",
    "ReservationNotFound",
    "Settlement",
    "Source",
    "Stopped",
    "Unauthenticated",
    "Unavailable",
    "Verdict",
    "estimate",
    "labels",
    "trace_attributes",
]
