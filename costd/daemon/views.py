"""What operators look at, read from the store and the desk; nothing here writes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.desk import Desk
from costd.engine import books, keys
from costd.engine.bounds import drawable
from costd.engine.changes import Family
from costd.engine.degrade import utilisation_bp
from costd.engine.rules import BudgetRule
from costd.engine.window import window_bounds
from costd.model.allowance import Allowance, AllowanceState, Sums
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.events import UsageEvent
from costd.model.labels import NO_LABEL
from costd.model.money import AMOUNT_MAX
from costd.model.reservation import Reservation, ReservationState
from costd.model.time import NEVER_NS
from costd.model.usage import CallOutcome
from costd.wire.control import usage_event_to_pb
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2 as pb

VERDICTS = {1: "allow", 2: "degrade", 3: "deny"}
_COLUMNS = ("settled", "reserved", "overrun", "granted", "lowered", "late", "unadmitted", "shadow")


def is_sequence(key: bytes) -> bool:
    """Tell a log's sequence key from an hourly count's."""
    return int.from_bytes(key[:8], "big") < keys.SEQUENCES_END_NS


def knows_budget(ledger: Ledger, budget_id: str) -> bool:
    """Tell whether the policy has this budget, or a counter of it remains."""
    if any(rule.budget.budget_id == budget_id for rule in ledger.rules.budgets.values()):
        return True
    return any(name["id"] == budget_id for name in _tag_names(ledger).values())


def budgets(ledger: Ledger, budget_id: str, *, include_ended: bool) -> list[pb.BudgetStatus]:
    """One row per counter, and one for each budget that has none yet; the fullest first."""
    now_ns = ledger.clock.now().wall_ns
    names = _tag_names(ledger)
    start = b"" if include_ended else now_ns.to_bytes(8, "big")
    rows, seen = [], set()
    for key, counter in ledger.store.scan(Family.COUNTERS, start=start):
        end_ns, tag, per = keys.split_counter_key(key)
        name = names.get(tag)
        if name is None or (budget_id and name["id"] != budget_id):
            continue
        seen.add(tag)
        row = pb.BudgetStatus(
            budget=name["id"],
            key=keys.shown(per),
            unit=name["unit"],
            window=name["window"],
            window_start_ns=counter.start_ns,
            window_end_ns=0 if end_ns == NEVER_NS else end_ns,
        )
        _fill(row, counter, ledger.rules.budgets.get(tag))
        rows.append(row)
    for tag, rule in ledger.rules.budgets.items():
        if tag not in seen and (not budget_id or rule.budget.budget_id == budget_id):
            rows.append(_unused(rule, now_ns))
    rows.sort(key=lambda row: (-row.utilisation_bp, row.budget, row.key))
    return rows


def _unused(rule: BudgetRule, now_ns: int) -> pb.BudgetStatus:
    # Not through the rule, which remembers: listings run beside the thread that decides.
    start_ns, end_ns = window_bounds(rule.budget.window, now_ns)
    row = pb.BudgetStatus(
        budget=rule.budget.budget_id,
        unit=rule.budget.unit,
        window=rule.budget.window.kind,
        window_start_ns=start_ns,
        window_end_ns=0 if end_ns == NEVER_NS else end_ns,
    )
    _fill(row, EMPTY_COUNTER, rule)
    return row


def _fill(row: pb.BudgetStatus, counter: Counter, rule: BudgetRule | None) -> None:
    if rule is not None:
        # A limit that was cut since the last write shows at once.
        counter = books.post(counter, rule)
    for column in _COLUMNS:
        setattr(row, column, getattr(counter, column))
    row.reserve_used = counter.reserve_used
    row.in_policy = rule is not None
    limit = counter.limit if counter.limit >= 0 else None
    used = counter.used
    if rule is not None:
        limit = rule.budget.limit
        row.active = rule.budget.active
        row.reserve = rule.budget.reserve
    if limit is None:
        return
    if rule is not None and rule.is_shared:  # as its steps see it: the whole fleet's
        limit, used = drawable(rule, counter, critical=True)
    row.limit = limit
    row.utilisation_bp = utilisation_bp(used, limit)
    if rule is not None:
        reached = [s.at_bp for s in rule.budget.steps if s.at_bp is not None]
        row.threshold_bp = max((at for at in reached if at <= row.utilisation_bp), default=0)


def _tag_names(ledger: Ledger) -> dict[bytes, dict[str, Any]]:
    """What every counter tag ever used stands for."""
    prefix = b"budget/"
    return {
        key.removeprefix(prefix): msgspec.json.decode(raw)
        for key, raw in ledger.store.scan(Family.META, start=prefix, end=b"budget0")
    }


def budget_names(ledger: Ledger, held: Reservation) -> list[str]:
    """Name the counters a reservation holds on."""
    names = []
    for line in held.counters:
        _, tag, per = keys.split_counter_key(line.key)
        raw = ledger.store.get(Family.META, b"budget/" + tag)
        name = msgspec.json.decode(raw)["id"] if raw else tag.hex()
        names.append(f"{name} ({keys.shown(per)})" if per else name)
    return names


class Outstanding(NamedTuple):
    """What clients may draw by themselves, as far as they reported."""

    open_count: int
    draining_count: int
    granted_nusd: int
    """Of open allowances."""
    drawn_nusd: int
    """Of what those were granted."""


def outstanding(desk: Desk) -> Outstanding:
    """Sum up what is out; callable beside the thread that writes."""
    out = list(desk.books.out.values())
    still_open = [each for each in out if each.state is AllowanceState.OPEN]
    return Outstanding(
        open_count=len(still_open),
        draining_count=len(out) - len(still_open),
        granted_nusd=sum(each.granted.amount_nusd for each in still_open),
        drawn_nusd=sum(each.drawn.amount_nusd for each in still_open),
    )


def allowances(ledger: Ledger, desk: Desk) -> Iterator[pb.AllowanceStatus]:
    """One row per allowance that is out, the largest first."""
    out = list(desk.books.out.values())  # in one step: listings run beside the thread that writes
    out.sort(key=lambda each: (-each.granted.amount_nusd, each.allowance_id))
    for each in out:
        row = _allowance_row(ledger, desk, each)
        if row is not None:
            yield row


def allowance(ledger: Ledger, desk: Desk, allowance_id: bytes) -> pb.AllowanceStatus | None:
    """One row; None for an allowance that is not out."""
    found = desk.books.out.get(allowance_id)
    return _allowance_row(ledger, desk, found) if found is not None else None


def _allowance_row(ledger: Ledger, desk: Desk, out: Allowance) -> pb.AllowanceStatus | None:
    """One row; None if its reservation was closed meanwhile."""
    identity = out.allowance_id
    # Past the store's cache, which belongs to the thread that writes.
    rows = ledger.store.scan(Family.RESERVATIONS, identity, identity + b"\0")
    held: Reservation | None = next((found for _, found in rows), None)
    if held is None or held.state is not ReservationState.HELD:
        return None
    session = desk.books.sessions.get(out.session_id)
    page = session.page if session is not None and out.slot >= 0 else ""
    return pb.AllowanceStatus(
        allowance_id=identity.hex(),
        session_id=out.session_id,
        caller=out.caller,
        attached=out.session_id in desk.attached,
        state=_allowance_state(desk, out),
        task_class=held.ask.task_class,
        provider=held.decision.provider,
        model=held.decision.model,
        tier=held.decision.tier,
        labels=held.ask.labels,
        granted=_sums_to_pb(out.granted),
        drawn=_sums_to_pb(_seen_drawn(desk, out, page)),
        settled=_sums_to_pb(out.settled),
        reserved_nusd=held.hold_nusd,
        expires_ns=held.admitted_ns + out.expires_steady_ns - held.admitted_steady_ns,
        maps_pages=bool(page),
        presumed=out.presumed,
    )


def _allowance_state(desk: Desk, out: Allowance) -> pb.AllowanceState:
    if out.state is AllowanceState.DRAINING:
        return pb.ALLOWANCE_STATE_DRAINING
    revoked = out.allowance_id in desk.revoked
    return pb.ALLOWANCE_STATE_REVOKED if revoked else pb.ALLOWANCE_STATE_OPEN


def _seen_drawn(desk: Desk, out: Allowance, page: str) -> Sums:
    """How far an allowance is drawn; a page that makes no sense is for the desk to deal with."""
    seen = None
    if page and out.state is AllowanceState.OPEN:
        seen = desk.pages.drawn(page, out.slot, out.serial)
    sane = seen is not None and out.drawn.within(seen) and seen.within(out.granted)
    return seen if seen is not None and sane else out.drawn


def _sums_to_pb(sums: Sums) -> pb.AllowanceSums:
    return pb.AllowanceSums(
        calls_count=sums.calls_count,
        amount_nusd=sums.amount_nusd,
        tokens_count=sums.tokens_count,
    )


def usage(ledger: Ledger, request: pb.ListUsageRequest, kept: int) -> pb.ListUsageResponse:
    """Usage events newest first, or sums over all of them by what is asked for."""
    where, group_by = dict(request.where), list(request.group_by)
    response = pb.ListUsageResponse()
    groups: dict[tuple[str, ...], pb.UsageGroup] = {}
    for key, event in ledger.store.scan(Family.USAGE, reverse=True):
        if event.settled_ns < request.since_ns:
            continue
        if request.until_ns and event.settled_ns >= request.until_ns:
            continue
        if any(_fact(event, name) != value for name, value in where.items()):
            continue
        if group_by:
            by = tuple(_fact(event, name) for name in group_by)
            if by not in groups:
                groups[by] = pb.UsageGroup(by=dict(zip(group_by, by, strict=True)))
            _add(groups[by], event)
        elif len(response.events) == kept:
            response.truncated = True
            break
        else:
            response.events.append(usage_event_to_pb(int.from_bytes(key, "big"), event))
    ranked = sorted(groups.values(), key=lambda group: -group.cost_nusd)
    response.groups.extend(ranked[:kept])
    response.truncated = response.truncated or len(ranked) > kept
    return response


def _fact(event: UsageEvent, name: str) -> str:
    if name in {"provider", "model", "tier"}:
        return str(getattr(event, name))
    if name == "task_class":
        return event.ask.task_class
    if name == "cost_kind":
        return event.ask.cost_kind or "llm_call"
    if name == "reason":
        return apb.Reason.Name(event.reason).removeprefix("REASON_")
    if name == "outcome":
        return CallOutcome(event.outcome).name
    if name == "verdict":
        return VERDICTS.get(event.verdict, NO_LABEL)
    if name == "closed_as":
        return event.closed_as
    return event.ask.labels.get(name, NO_LABEL)


def _add(group: pb.UsageGroup, event: UsageEvent) -> None:
    group.calls_count = _sum(group.calls_count, event.calls_count)
    group.retry_count = _sum(group.retry_count, event.retry_count)
    group.cost_nusd = _sum(group.cost_nusd, event.cost_nusd)
    if event.usage is not None:
        group.prompt_tokens = _sum(group.prompt_tokens, event.usage.prompt_tokens)
        group.cached_tokens = _sum(group.cached_tokens, event.usage.cached_tokens)
        group.output_tokens = _sum(group.output_tokens, event.usage.output_tokens)
        group.reasoning_tokens = _sum(group.reasoning_tokens, event.usage.reasoning_tokens)


def _sum(total: int, more: int | None) -> int:
    """Add up to what the wire can say: one caller's absurd report must not hide the others'."""
    return max(-AMOUNT_MAX, min(AMOUNT_MAX, total + (more or 0)))
