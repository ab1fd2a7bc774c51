"""Decide an ask: the first candidate that fits wins, and only the winner consumes anything."""

from typing import Any

import msgspec

from costd.engine import books, keys, redeem
from costd.engine import candidates as offers
from costd.engine.afford import note_levels
from costd.engine.binding import binding_of, budget_binding
from costd.engine.changes import Changes, Family
from costd.engine.degrade import Demands
from costd.engine.evaluate import blocking_kill, evaluate
from costd.engine.question import Evaluation, Question
from costd.engine.refuse import LIMITS, describe, would_pass
from costd.model.ask import Ask
from costd.model.decision import NO_DIRECTIVES, Binding, Decision, Reason, Verdict
from costd.model.grant import Grant, GrantRefusal
from costd.model.kill import KillSwitch
from costd.model.lease import Wanting
from costd.model.price import Price
from costd.model.reservation import Reservation, ReservationState


class Answer(msgspec.Struct, frozen=True):
    """A decision, and what must be written before it may be given."""

    decision: Decision
    changes: Changes
    reservation: Reservation | None = None
    price: Price | None = None
    """The price behind the hold."""
    counter_key: bytes = b""
    """The counter that refused, where one did."""


def admit(question: Question, *, grant: Grant | GrantRefusal | None = None) -> Answer | Wanting:
    """Decide whether a call may happen, at which tier, and hold its money.

    Where the question may wait, and a candidate lacks nothing but leases, say which, and decide
    nothing: it is asked again once the coordinator has lent them, or has not.

    Shape:   reads state through `question`, writes nothing; Answer.changes is one atomic batch.
    Ensures: for every budget and window, settled + reserved + hold <= limit in force, else it is
             not admitted (or is excused, and counted under its cause). A refusal changes nothing.
    Errors:  InvalidAsk for an ask that no policy could answer.
    Source:  docs/ARCHITECTURE.md, the path of one Admit.
    """
    asked = offers.asked_candidate(question.rules, question.ask, question.task_class, question.now)
    first, chosen = search(question, asked)
    would_have = None
    if question.rules.has_shadow and not plain(first, chosen):
        enforced = (first, chosen)
        question.enforce_shadow = False
        first, chosen = search(question, asked)
        if _outcome(*enforced) != _outcome(first, chosen):
            would_have = (_verdict(*enforced), _reason(*enforced))
    if question.may_wait and question.wanting is not None:
        return question.wanting
    refusal = 0
    if grant is not None:
        redeemed = redeem.redeem(
            question, asked, grant, needed=not plain(first, chosen), refused=first
        )
        if isinstance(redeemed, Wanting):
            return redeemed
        if isinstance(redeemed, redeem.Redeemed):
            return hold(question, redeemed.evaluation, granted=redeemed, first=first)
        refusal = int(redeemed)
    if chosen is None:
        decision = _refuse(question, first, asked, refusal)
        return Answer(decision, Changes(), counter_key=first.counter_key)
    return hold(question, chosen, first=first, would_have=would_have, grant_refusal=refusal)


def search(
    question: Question, asked: offers.Candidate, tried: list[Evaluation] | None = None
) -> tuple[Evaluation, Evaluation | None]:
    """Find the first candidate that fits: (evaluation of the asked one, the winner or None).

    Steps ask for cheaper candidates but do not insist: where none that fits goes as far as they
    ask, the one that goes furthest toward it wins; the asked one stands, with its directives,
    only where none goes any way. `tried`, where given, is filled with what was evaluated.
    """
    tried = [] if tried is None else tried
    first = evaluate(question, asked)
    tried.append(first)
    if first.reason is Reason.OK:
        if first.demands is None or _meets(question, first, asked, first.candidate):
            return first, first
    elif ends_search(question, first, asked):
        return first, None
    demanding = first
    passed_over = []
    for candidate in offers.cheaper_candidates(
        question.rules, question.ask, question.task_class, question.now, asked=asked
    ):
        if not _meets(question, demanding, asked, candidate):
            passed_over.append(candidate)
            continue
        result = evaluate(question, candidate)
        tried.append(result)
        if result.reason is Reason.OK:
            if result.demands is None or _meets(question, result, asked, candidate):
                return first, result
            demanding = result
        elif ends_search(question, result, asked):
            passed_over = []
            break
    return first, _furthest(question, demanding, asked, passed_over, tried)


def _furthest(
    question: Question,
    demanding: Evaluation,
    asked: offers.Candidate,
    passed_over: list[offers.Candidate],
    tried: list[Evaluation],
) -> Evaluation | None:
    """Find what fits and goes furthest toward what the reached steps ask for; None if none fits.

    What was tried and fits is to be beaten by what was passed over for going too short a way.
    """

    def way(candidate: offers.Candidate) -> tuple[int, bool]:
        return _way(question, demanding, asked, candidate)

    fitting = [result for result in tried if result.reason is Reason.OK]
    best = max(fitting, key=lambda result: way(result.candidate), default=None)
    # Of those that go as far, the lowest tier; the sort keeps the order of offers otherwise.
    passed_over.sort(key=lambda candidate: (way(candidate), candidate.tier_index), reverse=True)
    for candidate in passed_over:
        if best is not None and way(candidate) <= way(best.candidate):
            break
        result = evaluate(question, candidate)
        tried.append(result)
        if result.reason is Reason.OK:
            return result
        if ends_search(question, result, asked):
            break
    return best


def ends_search(question: Question, result: Evaluation, asked: offers.Candidate) -> bool:
    """Tell whether a candidate that does not fit leaves the rest no chance.

    A failing rule that names provider, model or tier leaves them one. So does a limit where the
    reached steps ask for something cheaper than this candidate: they would have passed it over
    had it fitted, so that its size says nothing about theirs.
    """
    if result.rejects_candidate:
        return False
    return result.reason not in LIMITS or _meets(question, result, asked, result.candidate)


def _meets(
    question: Question, result: Evaluation, asked: offers.Candidate, candidate: offers.Candidate
) -> bool:
    """Tell whether a candidate is what the reached steps ask for."""
    demands = result.demands
    if demands is None:
        return True
    if candidate.tier_index < _wanted(question, demands, asked):
        return False
    return not demands.switch_provider or candidate.provider != asked.provider


def _wanted(question: Question, demands: Demands, asked: offers.Candidate) -> int:
    """The highest tier that is low enough; tiers stop at `min_tier`."""
    last = len(question.rules.policy.tiers) - 1
    last = max(asked.tier_index, question.rules.tier_index.get(question.task_class.min_tier, last))
    return last if demands.economy else min(last, asked.tier_index + demands.tiers_down)


def _way(
    question: Question, demanding: Evaluation, asked: offers.Candidate, candidate: offers.Candidate
) -> tuple[int, bool]:
    """How far a candidate goes toward what the reached steps ask for: tiers first."""
    demands = demanding.demands
    assert demands is not None  # else nothing is passed over, and the first that fits has won
    switched = demands.switch_provider and candidate.provider != asked.provider
    return min(candidate.tier_index, _wanted(question, demands, asked)), switched


def plain(first: Evaluation, chosen: Evaluation | None) -> bool:
    """Tell whether what was asked for is given, with nothing to do cheaper."""
    return chosen is first and chosen.directives is NO_DIRECTIVES


def _verdict(first: Evaluation, chosen: Evaluation | None) -> Verdict:
    if chosen is None:
        return Verdict.DENY
    return Verdict.ALLOW if plain(first, chosen) else Verdict.DEGRADE


def _outcome(first: Evaluation, chosen: Evaluation | None) -> tuple[object, ...]:
    """What the caller would notice of a search's result."""
    given = (chosen.candidate.facts, chosen.directives) if chosen is not None else ()
    return (_verdict(first, chosen), _reason(first, chosen), *given)


def _reason(first: Evaluation, chosen: Evaluation | None) -> Reason:
    if first.reason is not Reason.OK:
        return first.reason
    return Reason.OK if plain(first, chosen) else Reason.STEP


def _refuse(
    question: Question, first: Evaluation, asked: offers.Candidate, refusal: int
) -> Decision:
    """State the refusal as an answer: what binds, when it resets, what would pass now."""
    binding = binding_of(question, first)
    upgrade = redeem.upgrade_of(first.binding_rule)
    note_levels(question, first)
    return Decision(
        verdict=Verdict.DENY,
        reason=first.reason,
        ask_id=question.ask.ask_id,
        tier=asked.tier,
        provider=asked.provider,
        model=asked.model,
        asked_tier=asked.tier,
        binding=binding,
        would_pass=would_pass(question, first, asked),
        upgrade_text=upgrade[0],
        upgrade_url=upgrade[1],
        grant_refusal=refusal,
        policy_revision=question.rules.policy.revision,
        message=_sentence(first, binding, asked),
        **_tightest(first),
    )


def _sentence(first: Evaluation, binding: Binding | None, asked: offers.Candidate) -> str:
    """Say why not; whoever meets a kill switch should learn why it is engaged."""
    text = describe(first.reason, binding, asked)
    rule = first.binding_rule
    return f"{text}: {rule.reason}" if isinstance(rule, KillSwitch) else text


def _tightest(result: Evaluation) -> dict[str, Any]:
    """The tightest budget's fields of a decision."""
    rule = result.tightest
    if rule is None:
        return {}
    return {
        "tightest_budget": rule.budget.budget_id,
        "tightest_key": keys.shown(keys.split_counter_key(result.tightest_key)[2]),
        "utilisation_bp": result.tightest_bp,
        "threshold_bp": result.threshold_bp,
    }


def hold(
    question: Question,
    chosen: Evaluation,
    *,
    first: Evaluation,
    would_have: tuple[Verdict, Reason] | None = None,
    granted: "redeem.Redeemed | None" = None,
    grant_refusal: int = 0,
) -> Answer:
    """Hold the winner's money and state the decision."""
    ask, now, policy = question.ask, question.now, question.rules.policy
    candidate, estimate = chosen.candidate, chosen.estimate
    ttl_ns = min(ask.ttl_ns or question.task_class.ttl_ns or policy.ttl_ns, policy.ttl_ns_max)
    price, identity = candidate.price, question.identity
    verdict, reason = Verdict.ALLOW, Reason.OK
    extra: dict[str, Any] = {}
    if granted is not None:
        reason = Reason.GRANT
        extra = {"grant_id": granted.grant.grant_id, "binding": binding_of(question, first)}
    elif not plain(first, chosen):
        verdict, reason = Verdict.DEGRADE, _reason(first, chosen)
        extra = _degraded(question, first)
    if would_have is not None:
        extra |= {"shadow_verdict": would_have[0], "shadow_reason": would_have[1]}
        if verdict is Verdict.ALLOW:
            reason = Reason.SHADOW
    tightest = chosen.tightest
    decision = Decision(
        verdict=verdict,
        reason=reason,
        ask_id=ask.ask_id,
        reservation_id=identity,
        tier=candidate.tier,
        provider=candidate.provider,
        model=candidate.model,
        asked_tier=first.candidate.tier,
        directives=chosen.directives,
        hold_nusd=estimate.hold_nusd,
        ceiling_nusd=estimate.ceiling_nusd,
        expires_ns=now.wall_ns + ttl_ns,
        tightest_budget=tightest.budget.budget_id if tightest else "",
        tightest_key=keys.shown(chosen.tightest_key[16:].decode()) if tightest else "",
        utilisation_bp=chosen.tightest_bp,
        threshold_bp=chosen.threshold_bp,
        grant_refusal=grant_refusal,
        policy_revision=policy.revision,
        price_id=price.price_id if price else "",
        price=price.source if price else None,
    )
    if extra:  # rare, and cheaper apart
        decision = msgspec.structs.replace(decision, **extra)
    reservation = Reservation(
        reservation_id=identity,
        caller=question.caller,
        ask=ask,
        decision=decision,
        state=ReservationState.HELD,
        counters=tuple([line for _, line, _ in chosen.lines]),
        rates=tuple([line for line, _ in chosen.rates]),
        hold_nusd=estimate.hold_nusd,
        ceiling_nusd=estimate.ceiling_nusd,
        admitted_ns=now.wall_ns,
        admitted_steady_ns=now.steady_ns,
        due_ns=now.steady_ns + ttl_ns,
    )
    # All checks passed; only writes below.
    changes = Changes()
    _write_holds(question, chosen, changes)
    if granted is not None:
        redeem.write(changes, question, granted)
    changes.puts.append((Family.RESERVATIONS, identity, reservation))
    changes.puts.append((Family.DUE, keys.due_key(reservation.due_ns, identity), b""))
    return Answer(decision, changes, reservation, price)


def _degraded(question: Question, first: Evaluation) -> dict[str, Any]:
    """The fields that tell a caller why it got less than it asked for."""
    if first.reason is not Reason.OK:
        reason, binding = first.reason, binding_of(question, first)
        upgrade = redeem.upgrade_of(first.binding_rule)
    else:
        # The asked candidate fits; what asked for less are the steps of its own budgets.
        assert first.demands is not None
        assert first.demands.rule is not None
        reason, binding = Reason.STEP, budget_binding(question, first.demands.rule, first)
        upgrade = redeem.upgrade_of(first.demands.rule)
    message = describe(reason, binding, first.candidate)
    return {
        "binding": binding,
        "message": message,
        "upgrade_text": upgrade[0],
        "upgrade_url": upgrade[1],
    }


def _write_holds(question: Question, chosen: Evaluation, changes: Changes) -> None:
    """Reserve on every counter and take from every bucket."""
    now, critical = question.now, question.task_class.critical
    for rule, line, counter in chosen.lines:
        posted = books.hold(counter, rule, line, wall_ns=now.wall_ns)
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
    for rate_line, full_ns in chosen.rates:
        changes.puts.append((Family.RATES, rate_line.key, full_ns))


def refuse_replay(question: Question, stored: Reservation) -> Decision | None:
    """Refuse to repeat an answer that a kill switch covers by now; None if none does."""
    decision = stored.decision
    used = question.state.grant(decision.grant_id) if decision.grant_id else None
    if used is not None and used.passes_kill:
        return None
    asked = offers.asked_candidate(question.rules, question.ask, question.task_class, question.now)
    facts = {**asked.facts, "provider": decision.provider, "model": decision.model}
    facts["tier"] = decision.tier
    tier_index = question.rules.tier_index.get(decision.tier, asked.tier_index)
    given = msgspec.structs.replace(asked, facts=facts, tier=decision.tier, tier_index=tier_index)
    kill = blocking_kill(question, given)
    if kill is None:
        return None
    return _refuse(question, Evaluation(given).fail(Reason.KILL_SWITCH, kill), given, 0)


_STATED_AS = {"grant_digest": "override_grant", "ttl_ns": "ttl"}
"""Fields of an ask that the caller knows under other names."""


def differing_field(stored: Reservation, ask: Ask) -> str | None:
    """Name the first field in which a repeated ask differs from the stored one; None if none."""
    return next(
        (
            _STATED_AS.get(name, name)
            for name in stored.ask.__struct_fields__
            if getattr(stored.ask, name) != getattr(ask, name)
        ),
        None,
    )
