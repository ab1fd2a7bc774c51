"""Show a decision, an explanation and a settlement to people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import render
from costd.cli.times import moment, moment_and_distance
from costd.model.money import format_nusd
from costd.wire.pb import admission_pb2 as pb

VERDICT_STYLES = {
    pb.VERDICT_ALLOW: "bold green",
    pb.VERDICT_DEGRADE: "bold yellow",
    pb.VERDICT_DENY: "bold red",
}
OUTCOME_STYLES = {"fits": "green", "rejected": "yellow", "ends_search": "red"}
RULE_COLUMNS = ("", "rule", "key", ">used", ">limit", "resets", "reason", "note")


def reason_word(number: int) -> str:
    """Write a reason the way docs/reference/reasons.md heads its sections."""
    return pb.Reason.Name(number).removeprefix("REASON_")


def verdict_text(verdict: pb.Verdict) -> Text:
    """Write a verdict in its colour."""
    name = pb.Verdict.Name(verdict).removeprefix("VERDICT_")
    return Text(name, style=VERDICT_STYLES.get(verdict, ""))


def model_name(provider: str, model: str, tier: str = "") -> str:
    """Write `provider/model (tier)` as far as it is known."""
    name = f"{provider}/{model}" if provider and model else model or provider
    return f"{name} ({tier})" if tier and name else name or tier


def decision_view(decision: pb.Decision, *, now_ns: int, utc: bool) -> RenderableType:
    """Lay a decision out: the verdict first, then whatever belongs to it."""
    head = Text.assemble(verdict_text(decision.verdict), "  ", reason_word(decision.reason))
    if decision.replayed:
        head.append("  (answered before; nothing new is held)", style="dim")
    return Group(head, render.fields(_decision_fields(decision, now_ns, utc=utc)))


def _decision_fields(
    decision: pb.Decision, now_ns: int, *, utc: bool
) -> Iterator[tuple[str, render.Cell]]:
    yield "message", decision.message
    yield "ask", decision.ask_id
    yield "reservation", decision.reservation_id
    if decision.state not in {pb.RESERVATION_STATE_UNSPECIFIED, pb.RESERVATION_STATE_HELD}:
        yield "state", state_word(decision.state)
    yield "model", model_name(decision.provider, decision.model, decision.tier)
    if decision.asked_tier != decision.tier:
        yield "asked tier", decision.asked_tier
    yield "directives", directives_text(decision.directives)
    if decision.verdict != pb.VERDICT_DENY:
        yield "holds", _hold(decision)
        yield "expires", moment_and_distance(decision.expires_ns, now_ns, utc=utc)
    yield "tightest", _tightest(decision)
    yield "binding", binding_text(decision.binding, now_ns, utc=utc)
    for option in decision.would_pass:
        yield "would pass", _would_pass(option)
    yield "upgrade", " ".join(filter(None, (decision.upgrade_text, decision.upgrade_url)))
    yield "grant", decision.grant_id
    if decision.grant_refusal:
        refusal = pb.GrantRefusal.Name(decision.grant_refusal)
        yield "grant unused", refusal.removeprefix("GRANT_REFUSAL_")
    if decision.shadow_verdict:
        would = pb.Verdict.Name(decision.shadow_verdict).removeprefix("VERDICT_")
        yield "in shadow", f"{would} {reason_word(decision.shadow_reason)}"
    yield "price", price_text(decision.price)
    yield "policy", decision.policy_revision


def _hold(decision: pb.Decision) -> str:
    held = format_nusd(decision.hold_nusd)
    if decision.HasField("ceiling_nusd"):
        return f"{held}, costs at most {format_nusd(decision.ceiling_nusd)}"
    return held


def _tightest(decision: pb.Decision) -> str:
    if not decision.tightest_budget:
        return ""
    key = f" [{decision.tightest_key}]" if decision.tightest_key else ""
    crossed = f", past {render.percent(decision.threshold_bp)}" if decision.threshold_bp else ""
    used = render.percent(decision.utilisation_bp)
    return f"{decision.tightest_budget}{key} at {used}{crossed}"


def _would_pass(option: pb.WouldPass) -> str:
    name = model_name(option.provider, option.model, option.tier)
    if option.HasField("amount_nusd"):
        return f"{name} up to {format_nusd(option.amount_nusd)}"
    return name


def directives_text(directives: pb.Directives) -> str:
    """Write what a caller should do cheaper: `max_retries=1, cache`."""
    parts = []
    for field, value in directives.ListFields():
        parts.append(field.name if value is True else f"{field.name}={value}")
    return ", ".join(parts)


def binding_text(binding: pb.Binding, now_ns: int, *, utc: bool) -> str:
    """Write the rule that decided: `budget team-month [team=a] $9.99 of $10.00, resets …`."""
    if not binding.rule and not binding.kind:
        return ""
    key = f" [{binding.key}]" if binding.key else ""
    text = f"{binding.kind.replace('_', ' ')} {binding.rule}{key}"
    if binding.unit:
        used = render.amount(binding.used, binding.unit)
        text += f" {used} of {render.amount(binding.limit, binding.unit)}"
    resets = moment_and_distance(binding.resets_ns, now_ns, utc=utc)
    return f"{text}, resets {resets}" if resets else text


def price_text(price: pb.PriceSource) -> str:
    """Write where a price came from."""
    if not price.source:
        return ""
    origin = " ".join(filter(None, (price.source, price.version)))
    assumed = ", assumed: the asked model's price is not known" if price.assumed else ""
    of = model_name(price.provider, price.model)
    return f"{of} by {origin}{assumed}" if of else f"{origin}{assumed}"


def state_word(state: int) -> str:
    """Write a reservation's state."""
    return pb.ReservationState.Name(state).removeprefix("RESERVATION_STATE_")


def settlement_view(settlement: pb.Settlement) -> RenderableType:
    """Lay out what became of a reservation."""
    head = Text(state_word(settlement.state), style="bold")
    if settlement.replayed:
        head.append("  (done before; nothing changed)", style="dim")
    overrun = settlement.overrun_nusd
    return Group(
        head,
        render.fields(
            [
                ("reservation", settlement.reservation_id),
                ("cost", format_nusd(settlement.cost_nusd)),
                ("held", format_nusd(settlement.hold_nusd)),
                ("overrun", Text(format_nusd(overrun), style="red") if overrun else ""),
                ("late", "it had expired; this cost replaces its charge" * settlement.late),
                ("price", price_text(settlement.price)),
            ]
        ),
    )


def explanation_view(answer: pb.Explanation, *, now_ns: int, utc: bool) -> RenderableType:
    """Lay out a decision and every candidate and rule that was looked at."""
    parts: list[RenderableType] = [decision_view(answer.decision, now_ns=now_ns, utc=utc)]
    for number, candidate in enumerate(answer.candidates, start=1):
        parts.append(Text())
        parts.append(_candidate_head(number, candidate))
        if candidate.rules:
            rows = [_rule_row(rule, utc=utc) for rule in candidate.rules]
            parts.append(render.table(RULE_COLUMNS, rows))
    return Group(*parts)


def _candidate_head(number: int, candidate: pb.CandidateReport) -> Text:
    name = model_name(candidate.provider, candidate.model, candidate.tier)
    outcome = candidate.outcome.replace("_", " ")
    return Text.assemble(
        (f"{number}. ", "bold"),
        render.plain(name, "bold"),
        f"  would hold {format_nusd(candidate.hold_nusd)}  ",
        render.plain(outcome, OUTCOME_STYLES.get(candidate.outcome, "dim")),
        render.plain(f": {candidate.why}" if candidate.why else ""),
    )


def _rule_row(rule: pb.RuleReport, *, utc: bool) -> tuple[render.Cell, ...]:
    binding = rule.binding
    passed = Text("pass", style="green") if rule.passed else Text("FAIL", style="bold red")
    measured = bool(binding.unit)
    # A limit of zero stands for none where the rule passed: nothing but zero passes a real one.
    limited = measured and (binding.limit or not rule.passed)
    return (
        passed,
        f"{binding.kind.replace('_', ' ')} {binding.rule}",
        binding.key,
        render.amount(binding.used, binding.unit) if measured else "",
        render.amount(binding.limit, binding.unit) if limited else "",
        moment(binding.resets_ns, utc=utc),
        "" if rule.passed else reason_word(rule.reason),
        rule.note,
    )
