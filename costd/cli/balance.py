"""`balance`: what quality gates cost, what they got, and what everything else did."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import connection, gates, options, render
from costd.cli.document import as_document, emit
from costd.cli.gates import Balance, Row
from costd.cli.times import moment
from costd.model.money import format_nusd
from costd.wire.pb import control_pb2 as pb

ROWS_MAX = 100_000
"""The most the Control service lists."""
HOUR_NS = 3_600 * 10**9
MONEY_COLUMNS = ("task class", "gate", ">calls", ">cost", ">share", ">per call", ">retries")
FATE_COLUMNS = ("task class", ">allow", ">degrade", ">deny", "answered by", "ended")
RESERVE_COLUMNS = ("budget", "key", ">reserve", ">used", ">share")
PER_CALL_NUSD = 1_000
"""Averages are shown to the millionth of a dollar where they have as much."""


def balance(
    *,
    since: options.Since = None,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Weigh quality gates against everything else: cost, verdicts, tiers, outcomes, reserves."""
    with connection.control(control) as daemon:
        usage = daemon.ListUsage(
            pb.ListUsageRequest(group_by=gates.GROUPED_BY, since_ns=since, limit_count=ROWS_MAX)
        )
        # Denials are counted by the hour, so the hour in which the range begins counts whole.
        audit = daemon.ListAudit(
            pb.ListAuditRequest(since_ns=_hour_of(since), limit_count=ROWS_MAX)
        )
        budgets = daemon.ListBudgets(pb.ListBudgetsRequest(limit_count=ROWS_MAX))
        policy = daemon.GetPolicy(pb.GetPolicyRequest())
    weighed = gates.weigh(usage.groups, audit.records, set(policy.critical_classes))
    reserves = [row for row in budgets.budgets if row.reserve]
    notes = list(_notes(since, truncated=usage.truncated or audit.truncated or budgets.truncated))
    if as_json:
        emit(_document(weighed, reserves, since, notes))
        return
    screen = render.console()
    heading = f"Since {moment(since, utc=utc)}" if since else "All that the books still hold"
    said = Text("\n".join(notes), style="dim")
    for part in (Text(heading, style="bold"), _tables(weighed), _reserves(reserves), said):
        screen.print(part)
        screen.print()
    screen.print(Text(weighed.verdict(), style="bold"))


def _hour_of(since_ns: int | None) -> int:
    return since_ns - since_ns % HOUR_NS if since_ns else 0


def _notes(since_ns: int | None, *, truncated: bool) -> Iterator[str]:
    """Say what the figures leave out, and which are not over the range."""
    yield "Calls count when they close; recorded ones have neither allow nor degrade."
    if since_ns:
        yield "Denials are counted by the hour; the range's first hour counts whole."
    yield "Gates are the classes that are critical under the policy in force."
    yield "Reserves are as they stand in the windows that run now, not over the range."
    if truncated:
        yield "There is more than the daemon lists at once: these figures are incomplete."


def _document(
    weighed: Balance, reserves: Sequence[pb.BudgetStatus], since_ns: int | None, notes: list[str]
) -> dict[str, object]:
    spent = weighed.total.cost_nusd
    return {
        "since_ns": since_ns or 0,
        "denials_since_ns": _hour_of(since_ns),
        "classes": [row.document(spent) for row in weighed.classes],
        "gates": weighed.gates.document(spent),
        "others": weighed.others.document(spent),
        "total": weighed.total.document(spent),
        "reserves": [as_document(row) for row in reserves],
        "notes": notes,
        "verdict": weighed.verdict(),
    }


def _tables(weighed: Balance) -> RenderableType:
    if not weighed.classes:
        return Text("nothing was spent, and nothing was denied", style="dim")
    spent = weighed.total.cost_nusd
    rows = [
        *((row, False) for row in weighed.classes),
        *((row, True) for row in (weighed.gates, weighed.others, weighed.total)),
    ]
    money = [_money(row, spent, is_sum=is_sum) for row, is_sum in rows]
    fates = [_fate(row, is_sum=is_sum) for row, is_sum in rows]
    return Group(render.table(MONEY_COLUMNS, money), "", render.table(FATE_COLUMNS, fates))


def _money(row: Row, spent_nusd: int, *, is_sum: bool) -> tuple[render.Cell, ...]:
    share, per_call = gates.share_bp(row.cost_nusd, spent_nusd), row.per_call_nusd
    return (
        _name(row, is_sum=is_sum),
        "yes" if row.critical and not is_sum else "",
        f"{row.calls_count:,}",
        format_nusd(row.cost_nusd),
        render.percent(share) if share is not None else "",
        _rounded(per_call) if per_call is not None else "",
        f"{row.retries_count:,}",
    )


def _fate(row: Row, *, is_sum: bool) -> tuple[render.Cell, ...]:
    return (
        _name(row, is_sum=is_sum),
        *(f"{row.verdicts[verdict]:,}" for verdict in ("allow", "degrade", "deny")),
        _shares(row.tiers, row.calls_count),
        gates.counts_text(row.outcomes),
    )


def _name(row: Row, *, is_sum: bool) -> render.Cell:
    return Text(row.task_class, style="bold") if is_sum else row.task_class or "(none)"


def _rounded(nusd: int) -> str:
    return format_nusd(nusd - nusd % PER_CALL_NUSD if nusd >= PER_CALL_NUSD else nusd)


def _shares(counts: Counter[str], whole: int) -> str:
    """Write shares of calls: `premium 81.20 %, standard 18.80 %`."""
    shares = ((name, gates.share_bp(count, whole)) for name, count in gates.counted(counts).items())
    return ", ".join(
        f"{name or '(none)'} {render.percent(share)}" for name, share in shares if share is not None
    )


def _reserves(reserves: Sequence[pb.BudgetStatus]) -> RenderableType:
    """Make a table of what is kept for gates, and what of it they have used."""
    rows = [
        (
            row.budget,
            row.key,
            render.amount(row.reserve, row.unit),
            render.amount(row.reserve_used, row.unit),
            render.percent(gates.share_bp(row.reserve_used, row.reserve) or 0),
        )
        for row in reserves
    ]
    table = render.listing(RESERVE_COLUMNS, rows, nothing="no budget keeps a protected reserve")
    return Group(Text("Protected reserves now", style="bold"), table) if rows else table
