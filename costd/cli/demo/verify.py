"""Holds the daemon's books against the recount of the journal, sum by sum."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from costd.cli.demo.recount import GROUPS, CounterSum, Recount
from costd.cli.render import amount
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb.control_pb2_grpc import ControlStub

ROWS_MAX = 100_000
"""The most the Control service lists; longer traces are refused."""
EXCUSES = ("overrun", "granted", "lowered", "late", "unadmitted", "shadow")


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of sum: how many were compared, and where they differ."""

    name: str
    compared_count: int
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Books:
    """What the daemon says at the end."""

    status: pb.Status
    budgets: tuple[pb.BudgetStatus, ...]
    events: tuple[pb.UsageEvent, ...]
    groups: dict[str, tuple[pb.UsageGroup, ...]]
    grants: tuple[pb.GrantStatus, ...]
    truncated: bool


def read_books(control: ControlStub) -> Books:
    """Ask the daemon for everything that is compared."""
    budgets = control.ListBudgets(pb.ListBudgetsRequest(include_ended=True, limit_count=ROWS_MAX))
    usage = control.ListUsage(pb.ListUsageRequest(limit_count=ROWS_MAX))
    groups = {
        label: control.ListUsage(pb.ListUsageRequest(group_by=[label], limit_count=ROWS_MAX))
        for label in GROUPS
    }
    lists = [budgets, usage, *groups.values()]
    return Books(
        status=control.GetStatus(pb.GetStatusRequest()),
        budgets=tuple(budgets.budgets),
        events=tuple(usage.events),
        groups={label: tuple(listed.groups) for label, listed in groups.items()},
        grants=tuple(control.ListGrants(pb.ListGrantsRequest()).grants),
        truncated=any(listed.truncated for listed in lists),
    )


def verify(ours: Recount, books: Books) -> list[Check]:
    """Compare every sum; an empty `differences` means equal to the last unit."""
    checks = [
        _check("price of each call", ours.settled_count, _prices(ours)),
        _check("usage events", len(books.events), _events(ours, books)),
        _check("grand total", 1, _total(ours, books)),
        *(_check(f"cost per {label}", len(books.groups[label]), _groups(ours, books, label))
          for label in GROUPS),
        _check("budgets, per key", len(ours.by_counter), _counters(ours, books)),
        _check("limits kept", len(books.budgets), _limits(books)),
        _check("nothing left reserved", len(books.budgets) + 1, _reserved(books)),
        _check("verdicts per class", len(ours.verdicts), _verdicts(ours, books)),
    ]  # fmt: skip
    if ours.grant_uses or books.grants:
        checks.append(_check("override grants", len(books.grants), _grants(ours, books)))
    if ours.drawn:
        checks.append(_check("decided in the process", len(ours.drawn), _drawn(ours, books)))
    if books.truncated:
        checks.append(Check("complete lists", 1, ("the daemon cut a list off",)))
    return checks


def _check(name: str, count: int, differences: Iterable[str]) -> Check:
    return Check(name, count, tuple(differences))


def _differs(what: str, ours: object, theirs: object) -> str:
    return f"{what}: the journal says {ours}, the daemon {theirs}"


def _prices(ours: Recount) -> Iterator[str]:
    for entry in ours.mispriced:
        recounted = ours.by_call[entry.ask_id]
        what = f"call {entry.ask_id} on {entry.provider}/{entry.model}"
        yield _differs(what, f"{recounted} nusd", f"{entry.cost_nusd} nusd")


def _events(ours: Recount, books: Books) -> Iterator[str]:
    theirs = _costs(books)
    if len(theirs) != len(books.events):
        yield f"{len(books.events) - len(theirs)} calls have more than one usage event"
    for call in ours.by_call.keys() | theirs.keys():
        if ours.by_call.get(call) != theirs.get(call):
            yield _differs(f"call {call}", ours.by_call.get(call), theirs.get(call))


def _drawn(ours: Recount, books: Books) -> Iterator[str]:
    theirs = _costs(books)
    for call in ours.drawn:
        if ours.by_call[call] != theirs.get(call):
            yield _differs(f"call {call}", ours.by_call[call], theirs.get(call))


def _costs(books: Books) -> dict[str, int]:
    return {event.ask_id: event.cost_nusd for event in books.events}


def _total(ours: Recount, books: Books) -> Iterator[str]:
    total = sum(group.cost_nusd for group in books.groups["project"])
    if total != ours.total_nusd:
        yield _differs("total", f"{ours.total_nusd} nusd", f"{total} nusd")
    calls = sum(group.calls_count for group in books.groups["project"])
    if calls != ours.settled_count:
        yield _differs("settled calls", ours.settled_count, calls)


def _groups(ours: Recount, books: Books, label: str) -> Iterator[str]:
    theirs = {
        group.by[label]: (
            group.calls_count,
            group.cost_nusd,
            group.prompt_tokens,
            group.output_tokens,
        )
        for group in books.groups[label]
    }
    mine = {value: sums for (name, value), sums in ours.by_group.items() if name == label}
    for value in mine.keys() | theirs.keys():
        if mine.get(value) != theirs.get(value):
            what = f"{label} {value} (calls, nusd, prompt tokens, output tokens)"
            yield _differs(what, mine.get(value), theirs.get(value))


def _counters(ours: Recount, books: Books) -> Iterator[str]:
    theirs: dict[tuple[str, str], CounterSum] = {}
    for row in books.budgets:
        counter = theirs.setdefault((row.budget, row.key), CounterSum())
        counter.settled += row.settled
        counter.overrun += row.overrun
        counter.granted += row.granted
    for name in ours.by_counter.keys() | theirs.keys():
        mine, other = ours.by_counter.get(name, CounterSum()), theirs.get(name, CounterSum())
        if mine != other:
            yield _differs(f"budget {' '.join(name)}", mine, other)


def _limits(books: Books) -> Iterator[str]:
    for row in books.budgets:
        excused = sum(getattr(row, excuse) for excuse in EXCUSES)
        if row.HasField("limit") and row.settled + row.reserved > row.limit + excused:
            over = amount(row.settled + row.reserved - row.limit, row.unit)
            yield f"budget {row.budget} {row.key} is {over} over its limit, {excused} of it excused"


def _reserved(books: Books) -> Iterator[str]:
    if books.status.open_reservations_count or books.status.reserved_nusd:
        yield (
            f"{books.status.open_reservations_count} reservations are open and hold "
            f"{books.status.reserved_nusd} nusd, though every call was closed"
        )
    for row in books.budgets:
        if row.reserved:
            yield f"budget {row.budget} {row.key} still reserves {amount(row.reserved, row.unit)}"


def _verdicts(ours: Recount, books: Books) -> Iterator[str]:
    theirs = dict(books.status.decisions)
    for name in ours.verdicts.keys() | theirs.keys():
        if ours.verdicts.get(name) != theirs.get(name):
            yield _differs(name, ours.verdicts.get(name), theirs.get(name))


def _grants(ours: Recount, books: Books) -> Iterator[str]:
    theirs = {grant.grant_id: (grant.uses_count, grant.used_nusd) for grant in books.grants}
    for name in ours.grant_uses.keys() | theirs.keys():
        mine = (ours.grant_uses.get(name, 0), ours.grant_nusd.get(name, 0))
        if mine != theirs.get(name, (0, 0)):
            yield _differs(f"grant {name} (uses, nusd)", mine, theirs.get(name, (0, 0)))
