"""Redeem an override grant: looked at only where the ask would not pass as asked."""

from dataclasses import dataclass

from costd.engine import candidates as offers
from costd.engine import keys
from costd.engine.bounds import drawable, room_left, shortage
from costd.engine.changes import Changes, Family
from costd.engine.degrade import utilisation_bp
from costd.engine.evaluate import evaluate
from costd.engine.question import Evaluation, Question, note_tightest
from costd.engine.rules import NO_KILLS, BudgetRule, RateRule, budget_amount
from costd.model.counter import EMPTY_COUNTER
from costd.model.decision import Reason
from costd.model.events import Alert, AuditRecord
from costd.model.grant import Grant, GrantRefusal, GrantUse
from costd.model.kill import KillSwitch
from costd.model.lease import Wanting
from costd.model.money import format_nusd
from costd.model.policy import ModelRule
from costd.model.reservation import CounterLine, Excuse

OVERRIDABLE = frozenset(
    {
        Reason.OK,  # fits, but a step asks for something cheaper
        Reason.BUDGET_EXHAUSTED,
        Reason.NO_LEASE,
        Reason.STEP_DENY,
        Reason.RATE_LIMITED,
        Reason.KILL_SWITCH,
        Reason.NO_BUDGET,
    }
)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A grant that lets the ask pass, and the use it leaves behind."""

    grant: Grant
    use: GrantUse
    evaluation: Evaluation


def redeem(
    question: Question,
    asked: offers.Candidate,
    grant: Grant | GrantRefusal,
    *,
    needed: bool,
    refused: Evaluation,
) -> Redeemed | GrantRefusal | Wanting:
    """Try a grant on the asked candidate; a refused grant changes nothing.

    In a fleet a grant is a small budget of it: where the question may wait for that, say what the
    coordinator must lend of the grant first.

    Shape:   reads the grant's use through `question.state`, writes nothing.
    Ensures: uses and amount never pass what was signed; a grant is not burnt by an ask that
             would have passed without it.
    """
    if isinstance(grant, GrantRefusal):
        return grant
    if not needed:
        return GrantRefusal.NOT_NEEDED
    refusal = _out_of_scope(question, asked, grant, refused)
    if refusal is not None:
        return refusal
    used = question.state.grant(grant.grant_id) or GrantUse(
        grant_id=grant.grant_id, issuer=grant.issuer, subject=grant.subject
    )
    if used.uses_count >= grant.uses_max_count:
        return GrantRefusal.USED_UP
    result = Evaluation(asked)
    result.estimate = offers.estimate(question.rules, question.ask, question.task_class, asked)
    if used.used_nusd + result.estimate.hold_nusd > grant.amount_nusd:
        return GrantRefusal.AMOUNT_EXCEEDED
    _excused_lines(question, result)
    if question.rules.in_fleet:
        lacking = _lent_lines(question, grant, result)
        if lacking is not None:
            return lacking
    use = GrantUse(
        grant_id=grant.grant_id,
        issuer=grant.issuer,
        subject=grant.subject,
        uses_count=used.uses_count + 1,
        used_nusd=used.used_nusd + result.estimate.hold_nusd,
        uses_max_count=grant.uses_max_count,
        amount_nusd=grant.amount_nusd,
        expires_ns=grant.expires_ns,
        passes_kill=grant.passes_kill,
        is_offline=grant.is_offline,
    )
    return Redeemed(grant, use, result)


def _out_of_scope(
    question: Question, asked: offers.Candidate, grant: Grant, refused: Evaluation
) -> GrantRefusal | None:
    task_class = question.task_class
    if not grant.scope.holds(asked.facts):
        return GrantRefusal.WRONG_SCOPE
    if grant.task_classes and task_class.name not in grant.task_classes:
        return GrantRefusal.WRONG_CLASS
    if not task_class.critical and not grant.any_class:
        return GrantRefusal.WRONG_CLASS
    if refused.reason is Reason.KILL_SWITCH:
        if not grant.passes_kill:
            return GrantRefusal.KILL_SWITCH
        # Kill switches come first, so they hide what else stands against the ask.
        kills, question.kills = question.kills, NO_KILLS
        refused = evaluate(question, asked)
        question.kills = kills
    return None if refused.reason in OVERRIDABLE else GrantRefusal.HARD_RULE


def _excused_lines(question: Question, result: Evaluation) -> None:
    """Count the hold under `granted` in every matching budget, and note the tightest."""
    estimate = result.estimate
    tokens = (estimate.prompt_tokens or 0) + (estimate.output_tokens or 0)
    facts = result.candidate.facts
    for rule in question.rules.matching(facts).budgets:
        key = rule.counter_key(facts, question.now.wall_ns)
        hold = budget_amount(rule.budget.unit, cost_nusd=estimate.hold_nusd, tokens=tokens)
        counter = question.state.counter(key) or EMPTY_COUNTER
        line = CounterLine(key, rule.budget.unit, hold, 0, Excuse.GRANTED)
        result.lines.append((rule, line, counter))
        if rule.budget.limit is None:
            continue
        limit, drawn = drawable(rule, counter, critical=question.task_class.critical)
        share = utilisation_bp(drawn + hold, limit)
        if share >= result.tightest_bp:
            note_tightest(result, rule, key, share)


def _lent_lines(
    question: Question, grant: Grant, result: Evaluation
) -> GrantRefusal | Wanting | None:
    """Count the use on the grant's own counters, of which the coordinator lends.

    Shape:   that no more is redeemed here than the grant says was checked before, by its use.
    Ensures: beyond what it is lent, only a daemon of the audience redeems, where nobody can be
             asked.
    """
    state, lacking, said = question.state, [], []
    amounts = (1, result.estimate.hold_nusd)
    names = (GrantRefusal.USED_UP, GrantRefusal.AMOUNT_EXCEEDED)
    for key, amount, refusal in zip(keys.grant_keys(grant), amounts, names, strict=True):
        rule, counter = question.rules.budget_of(key), state.counter(key) or EMPTY_COUNTER
        assert rule is not None
        excuse = Excuse.NONE
        room = room_left(rule, counter, critical=False, in_tenure=question.in_tenure)
        if room is None or amount > room:
            lacking.append(shortage(rule, key, counter, amount, critical=False))
            excuse = Excuse.UNLEASED
            told = refusal if state.is_exhausted(key) else state.refused_grant(key)
            if told is not None:
                said.append(told)
        line = CounterLine(key, rule.budget.unit, amount, 0, excuse)
        result.lines.append((rule, line, counter))
    if not lacking:
        return None
    if question.grant_may_wait:
        return Wanting(tuple(sorted(lacking, key=lambda each: each.key)))
    if said:
        return said[0]
    return None if grant.is_offline else GrantRefusal.NO_LEASE


def write(changes: Changes, question: Question, redeemed: Redeemed) -> None:
    """Store the use, with an audit record and an alert."""
    grant, wall_ns = redeemed.grant, question.now.wall_ns
    changes.put(Family.GRANTS, grant.grant_id.encode(), redeemed.use)
    held = format_nusd(redeemed.evaluation.estimate.hold_nusd)
    detail = (
        f"use {redeemed.use.uses_count} of {grant.uses_max_count}, {held} held for "
        f"{question.task_class.name}; issued by {grant.issuer} to {grant.subject}: {grant.reason}"
    )
    changes.audit.append(
        AuditRecord(
            at_ns=wall_ns,
            actor=grant.subject,
            action="grant_redeemed",
            subject=grant.grant_id,
            detail=detail,
        )
    )
    changes.alerts.append(
        Alert(
            raised_ns=wall_ns,
            kind="grant_redeemed",
            rule=grant.grant_id,
            amount_nusd=redeemed.evaluation.estimate.hold_nusd,
            message=f"override grant {grant.grant_id} redeemed: {detail}",
        )
    )


def upgrade_of(rule: BudgetRule | RateRule | ModelRule | KillSwitch | None) -> tuple[str, str]:
    """Find the upgrade text and link of a rule that has them."""
    if isinstance(rule, BudgetRule):
        return rule.budget.upgrade_text, rule.budget.upgrade_url
    if isinstance(rule, RateRule):
        return rule.rate.upgrade_text, rule.rate.upgrade_url
    if isinstance(rule, ModelRule):
        return rule.upgrade_text, rule.upgrade_url
    return "", ""
