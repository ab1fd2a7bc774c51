"""What the policy in force lets be lent of a counter, when, and what its steps then bring."""

from collections.abc import Iterable
from typing import Final

import msgspec

from costd.coordinator.rows import Daemon, Rows
from costd.engine import books, keys, lend
from costd.engine.changes import Changes
from costd.engine.lend import Terms
from costd.engine.rules import BudgetRule, Rules
from costd.engine.shares import WHOLE, fair_share, may_recall
from costd.grants import verify
from costd.model.counter import Counter
from costd.model.events import AuditRecord
from costd.model.grant import Grant, GrantRefusal
from costd.model.lease import NO_STAND, Pool, Want
from costd.model.money import AMOUNT_MAX
from costd.model.policy import WindowKind
from costd.model.time import NEVER_NS, NS_PER_S, Now
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

RECALL_RETRY_NS: Final = 20_000_000
"""How soon to ask again for what others were asked to give back: a round trip to them and back."""
EXHAUSTED_RETRY_NS: Final = 500_000_000
"""How soon to ask again for what nobody has."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """How long promises last; the same for every daemon of a fleet."""

    tenure_ns: int = 10 * NS_PER_S
    skew_ns_max: int = 5 * NS_PER_S
    """A daemon whose clock is further off gets no leases."""
    early_ns: int = 5 * NS_PER_S
    """How long before a window begins its leases are granted."""

    @property
    def outlived_ns(self) -> int:
        """Whoever was not heard for so long by anybody spends nothing, however clocks differ."""
        return self.tenure_ns + self.skew_ns_max


def terms_of(rules: Rules, key: bytes, *, topped_up: int) -> Terms | None:
    """What may be used of a counter in all: by the policy, or by an override grant's own word.

    Shape:   None where the policy has no such fleet budget or rate. That a grant was signed is
             another question: `refused_grants`.
    """
    tag = keys.tag_of(key)
    if tag in rules.shared_rates:
        return Terms(limit=WHOLE)
    rule = rules.budget_of(key)
    if rule is None or not rule.is_shared or rule.limit is None:
        return None
    return Terms(
        limit=limit_of(rule, topped_up=topped_up),
        reserve=rule.budget.reserve,
        whole=rule.budget.window.kind is WindowKind.RUN,
    )


def limit_of(rule: BudgetRule, *, topped_up: int) -> int:
    """Tell a budget's limit with its top-ups, kept within what can be counted.

    A later policy, or two top-ups at once, may say more than either did when it was looked at.
    """
    return min((rule.limit or 0) + topped_up, AMOUNT_MAX)


def refused_grants(
    rules: Rules, message: pb.LeaseRequest, now_ns: int
) -> tuple[Grant | None, dict[bytes, GrantRefusal]]:
    """Find the grant that a request redeems, and what nothing is lent of because it is another's.

    A call in flight is extended without a token: its daemon has shown it before.
    """
    wanted = {
        want.stand.counter_key
        for want in message.wants
        if keys.is_grants(want.stand.counter_key)
        and (message.override_grant or not want.stand.reserved)
    }
    if not wanted:
        return None, {}
    grant = verify(
        message.override_grant,
        keys=rules.policy.grant_keys,
        audience="",  # whoever may redeem it offline may be lent it all the same
        wall_ns=now_ns,
        in_fleet=True,
    )
    if isinstance(grant, GrantRefusal):
        return None, dict.fromkeys(wanted, grant)
    others = wanted.difference(keys.grant_keys(grant))
    return grant, dict.fromkeys(others, GrantRefusal.MALFORMED)


def note_lent(rows: Rows, grant: Grant, daemon: Daemon, now_ns: int) -> None:
    """Write down who was lent a use of an override grant."""
    detail = f"lent to {daemon.name}; issued by {grant.issuer} to {grant.subject}: {grant.reason}"
    rows.audit.append(
        AuditRecord(
            at_ns=now_ns,
            actor=grant.subject,
            action="grant_lent",
            subject=grant.grant_id,
            detail=detail,
        )
    )


def level_of(rows: Rows, rules: Rules, daemon_id: str, key: bytes) -> pb.Level | None:
    """How the fleet stands on a counter, for one daemon; None where nothing is lent of it."""
    pool, share = rows.pool(key), rows.share(key, daemon_id)
    terms = terms_of(rules, key, topped_up=pool.topped_up)
    if terms is None:
        return None
    if keys.tag_of(key) in rules.shared_rates:
        terms = msgspec.structs.replace(terms, reserve=fair_share(pool))
    return wire.level_to_pb(key, lend.level(pool, terms, share.stand if share else NO_STAND))


def is_in_force(rule: BudgetRule, key: bytes, want: Want, now_ns: int, span: Span) -> bool:
    """Tell whether a counter's window is in force, or begins so soon that it may be leased.

    One that has ended is still leased to a daemon with calls in flight there, for extensions.
    """
    end_ns = keys.split_counter_key(key)[0]
    if end_ns >= NEVER_NS:
        return rule.window(now_ns)[1] == end_ns
    if end_ns <= now_ns and want.stand.reserved:
        return True
    moments = (-span.skew_ns_max, 0, span.early_ns)
    return any(rule.window(now_ns + moment)[1] == end_ns for moment in moments)


def recalled(rows: Rows, key: bytes, want: Want, *, is_rate: bool) -> "pb.LeaseOutcome":
    """Have others give back what there is too little of, if they hold more than they use."""
    pool, stand = rows.pool(key), want.stand
    if is_rate:
        rows.scarce_rates.add(key)
        others_have_more = may_recall(pool, stand.amount, has_too_little=want.critical)
    else:
        others_have_more = pool.taken - pool.used > lend.presumed(stand)
    if not others_have_more:
        return pb.LEASE_OUTCOME_EXHAUSTED
    rows.recalled.add(key)
    return pb.LEASE_OUTCOME_RECALLED


def alerted(
    rows: Rows, rule: BudgetRule, key: bytes, pool: Pool, terms: Terms, *, now_ns: int
) -> Pool:
    """Alert once for every step the fleet has reached; engage a halt."""
    if not rule.has_steps:
        return pool
    start_ns = pool.start_ns or rule.window(now_ns)[0]
    counter = Counter(
        settled=pool.settled,
        reserved=pool.reserved,
        reserve_settled=pool.reserve_settled,
        reserve_reserved=pool.reserve_reserved,
        limit=terms.limit,
        alerted_bp=pool.alerted_bp,
        burn_alerted_bp=pool.burn_alerted_bp,
        start_ns=start_ns,
    )
    changes, now = Changes(), Now(now_ns, now_ns)
    limit, used = terms.limit - terms.reserve, pool.used - pool.reserve_used
    counter = books.raise_crossings(changes, rule, key, counter, limit=limit, used=used, now=now)
    rows.alerts += changes.alerts
    rows.audit += changes.audit
    rows.kills += [value for _, _, value in changes.puts]
    return msgspec.structs.replace(
        pool,
        alerted_bp=counter.alerted_bp,
        burn_alerted_bp=counter.burn_alerted_bp,
        start_ns=start_ns,
    )


def retry_ns(outcomes: Iterable["pb.LeaseOutcome"]) -> int:
    """Tell how soon a request that was not granted makes sense again."""
    soon = {pb.LEASE_OUTCOME_GRANTED, pb.LEASE_OUTCOME_RECALLED, pb.LEASE_OUTCOME_SET_FAILED}
    return RECALL_RETRY_NS if soon.issuperset(outcomes) else EXHAUSTED_RETRY_NS
