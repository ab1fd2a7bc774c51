"""Records the books append: usage events, alerts, audit."""

import msgspec

from costd.model.ask import Ask
from costd.model.price import PriceSource
from costd.model.usage import CallOutcome, Usage


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One closed call, with what it cost and why that is so.

    Sums over events hold what the books say. What an expiry charged is an event like others; when
    the truth comes, a `reversed` event with every amount negative takes it out again.
    """

    reservation_id: bytes
    ask: Ask
    tier: str
    provider: str
    model: str
    cost_nusd: int
    hold_nusd: int
    admitted_ns: int
    settled_ns: int
    usage: Usage | None
    price: PriceSource | None
    price_id: str
    reason: int
    closed_as: str
    calls_count: int = 1
    """More where an allowance expired with calls in flight; below zero in a reversal."""
    verdict: int = 0
    """Of the decision; 0 where nobody admitted it."""
    duration_ns: int = 0
    outcome: CallOutcome = CallOutcome.UNSPECIFIED
    retry_count: int = 0


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should hear of, once."""

    raised_ns: int
    kind: str
    rule: str
    message: str
    key: str = ""
    threshold_bp: int = 0
    utilisation_bp: int = 0
    amount_nusd: int = 0


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, when. Denials are counts per hour, reason, rule and class."""

    at_ns: int
    actor: str
    action: str
    subject: str
    detail: str = ""
    count: int = 1
    task_class: str = ""
    """Of a denial."""
    reason: int = 0
    """Of a denial."""
