"""An operator adds to what a counter of a budget may reach, once for each id."""

import uuid
from collections.abc import Sequence

from costd.coordinator.lendable import limit_of
from costd.coordinator.store import CoordinatorStore, TopUp
from costd.engine import keys
from costd.engine.rules import BudgetRule
from costd.errors import InvalidAsk
from costd.model.money import AMOUNT_MAX
from costd.model.time import NEVER_NS
from costd.wire.pb import fleet_control_pb2 as fpb


async def top_up(
    store: CoordinatorStore,
    rule: BudgetRule,
    request: fpb.TopUpBudgetRequest,
    *,
    actor: str,
    now_ns: int,
) -> fpb.TopUpBudgetResponse:
    """Add to a budget's limit for the window in force; the same id again changes nothing.

    Shape:   of an id that was there before, the answer is about the window that it went into.
    Units:   `request.amount` is in the budget's unit.
    Errors:  InvalidAsk; also where the id was there with another amount, budget or key.
    """
    asked = _read(rule, request, actor=actor, now_ns=now_ns)
    known = await store.read_top_up(asked.top_up_id) if request.top_up_id else None
    if known is None:
        await _check_limit(store, rule, request, asked)
        if not await store.top_up(asked):
            # Somebody was faster with the same id.
            known = await store.read_top_up(asked.top_up_id)
    if known is not None:
        _check_same(known, asked, request.budget)
    key = (known or asked).counter_key
    pool = await store.transact(lambda rows: rows.pool(key), keys=[key])
    end_ns = keys.split_counter_key(key)[0]
    return fpb.TopUpBudgetResponse(
        limit=limit_of(rule, topped_up=pool.topped_up),
        topped_up=pool.topped_up,
        window_end_ns=0 if end_ns >= NEVER_NS else end_ns,
    )


def _read(rule: BudgetRule, request: fpb.TopUpBudgetRequest, *, actor: str, now_ns: int) -> TopUp:
    """Read what is asked for.

    Errors:  InvalidAsk.
    """
    if not rule.is_shared:
        raise InvalidAsk(
            f"budget {request.budget!r} is not the fleet's (share: host, or without a limit); "
            "change its limit in the policy"
        )
    if not request.amount:
        raise InvalidAsk("amount is 0; say how much to add, in the budget's unit")
    end_ns = rule.window(now_ns)[1]
    per_key = _per_key(request.budget, rule.budget.per, request.key)
    return TopUp(
        top_up_id=request.top_up_id or f"top-up-{uuid.uuid4().hex[:12]}",
        counter_key=keys.window_prefix(end_ns, rule.tag) + per_key.encode(),
        amount=request.amount,
        actor=actor,
        reason=request.reason,
        at_ns=now_ns,
    )


async def _check_limit(
    store: CoordinatorStore, rule: BudgetRule, request: fpb.TopUpBudgetRequest, asked: TopUp
) -> None:
    key = asked.counter_key
    pool = await store.transact(lambda rows: rows.pool(key), keys=[key])
    limit = (rule.limit or 0) + pool.topped_up + request.amount
    if not 0 <= limit <= AMOUNT_MAX:
        raise InvalidAsk(
            f"amount {request.amount} would make the limit of budget {request.budget!r} "
            f"{limit}; it must stay between 0 and {AMOUNT_MAX}"
        )


def _check_same(known: TopUp, asked: TopUp, budget: str) -> None:
    """Hold what is asked for against what was done under its id, whatever the window.

    Errors:  InvalidAsk that says both.
    """
    _, tag, per = keys.split_counter_key(known.counter_key)
    _, asked_tag, asked_per = keys.split_counter_key(asked.counter_key)
    again = f"top-up {asked.top_up_id!r} was there already, and added"
    if known.amount != asked.amount:
        raise InvalidAsk(f"{again} {known.amount}, not {asked.amount}; give another id to add more")
    if tag != asked_tag:
        raise InvalidAsk(f"{again} to another budget than {budget!r}; give another id")
    if per != asked_per:
        to = [keys.shown(each) for each in (per, asked_per)]
        raise InvalidAsk(f"{again} to {to[0]!r} of {budget!r}, not {to[1]!r}; give another id")


def _per_key(budget: str, per: Sequence[str], text: str) -> str:
    """Read `user=ann` as a counter's key, whatever the order of several.

    Errors:  InvalidAsk naming what the budget is per.
    """
    # One value may hold what separates several.
    parts = text.split(", ") if len(per) > 1 else [text] * bool(text)
    given = {part.partition("=")[0]: part for part in parts if "=" in part}
    if len(parts) != len(per) or set(given) != set(per):
        wanted = ", ".join(f"{name}=…" for name in per) or "none"
        raise InvalidAsk(f"key of budget {budget!r}: {wanted} is wanted, not {text or 'none'}")
    return keys.SEPARATOR.join(given[name] for name in per)
