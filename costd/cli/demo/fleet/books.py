"""What the agents counted, what the fleet's books say, and whether both are the same."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import msgspec

from costd.cli.demo.fleet.crew import Call
from costd.cli.demo.fleet.stage import Stage
from costd.cli.demo.verify import ROWS_MAX, Check
from costd.cli.render import amount
from costd.model.money import format_nusd
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb import fleet_control_pb2 as fpb

BUDGET: Final = "race"
ANSWER_S: Final = 0.5
"""A coordinator that is being killed does not answer; the screen goes on."""
SILENT_COUNT_MAX: Final = 3
"""So often one that is busy may be late before it counts as not there."""
RATE_OVER_NS: Final = 2 * NS_PER_S


@dataclass(slots=True)
class Counted:
    """What the agents of one daemon saw."""

    settled_count: int = 0
    cost_nusd: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""


class Tally:
    """Follows the journal while it grows."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        path.touch()
        self._file = path.open("rb")
        self._rest = b""
        self._decode = msgspec.json.Decoder(Call).decode
        self.by_daemon = {name: Counted() for name in names}
        self.costs: dict[str, int] = {}
        """By reservation."""
        self.repeated_count = 0
        """Calls that were sent more than once, because nobody answered."""
        self._recent: deque[tuple[int, int]] = deque()

    @property
    def spent_nusd(self) -> int:
        """What all agents paid."""
        return sum(each.cost_nusd for each in self.by_daemon.values())

    @property
    def calls_per_s(self) -> int:
        """Calls closed lately."""
        return sum(count for _, count in self._recent) * NS_PER_S // RATE_OVER_NS

    def read(self, now_ns: int) -> None:
        """Count what is new."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            self._take(self._decode(line))
        self._recent.append((now_ns, len(lines)))
        while self._recent[0][0] < now_ns - RATE_OVER_NS:
            self._recent.popleft()

    def close(self) -> None:
        """Stop following."""
        self._file.close()

    def _take(self, call: Call) -> None:
        counted = self.by_daemon[call.daemon]
        if not call.reservation_id:
            counted.refused[call.reason] += 1
            return
        counted.settled_count += 1
        counted.cost_nusd += call.cost_nusd
        self.costs[call.reservation_id] = call.cost_nusd
        self.repeated_count += call.attempts_count > 2  # noqa: PLR2004  an ask and a settle


@dataclass(slots=True)
class View:
    """What the coordinator says, as of the last time that it answered."""

    silent_count: int = SILENT_COUNT_MAX
    """How often it has not answered since it did."""
    daemons: dict[str, fpb.DaemonStatus] = field(default_factory=dict)
    leases: dict[str, fpb.LeaseStatus] = field(default_factory=dict)
    pool: pb.BudgetStatus = field(default_factory=pb.BudgetStatus)
    most_used_nusd: int = 0
    """The most that was ever settled and reserved."""

    @property
    def answers(self) -> bool:
        """Whether the coordinator is there."""
        return self.silent_count < SILENT_COUNT_MAX

    def gone(self) -> None:
        """Count it as not there."""
        self.silent_count = SILENT_COUNT_MAX

    def read(self, stage: Stage) -> None:
        """Ask it, without waiting for long."""
        try:
            listed = stage.fleet.ListDaemons(fpb.ListDaemonsRequest(), timeout=ANSWER_S)
            leases = stage.fleet.ListLeases(fpb.ListLeasesRequest(), timeout=ANSWER_S)
            budgets = stage.control("coordinator").ListBudgets(
                pb.ListBudgetsRequest(budget=BUDGET), timeout=ANSWER_S
            )
        except grpc.RpcError:
            self.silent_count += 1
            return
        self.silent_count = 0
        self.daemons = {each.name: each for each in listed.daemons}
        self.leases = {each.daemon: each for each in leases.leases}
        self.pool = budgets.budgets[0]
        self.most_used_nusd = max(self.most_used_nusd, self.pool.settled + self.pool.reserved)

    def is_back(self, name: str) -> bool:
        """Tell whether a daemon is heard, owes nothing, and is believed."""
        daemon = self.daemons.get(name)
        return bool(daemon and daemon.attached and not daemon.presumed_nusd)

    def agrees(self, tally: Tally) -> bool:
        """Tell whether everything that the agents paid has arrived."""
        outboxes = sum(daemon.outbox_count for daemon in self.daemons.values())
        return (
            not self.silent_count
            and not outboxes
            and not self.pool.reserved
            and self.pool.settled == tally.spent_nusd
        )


def verify(tally: Tally, stage: Stage, view: View) -> list[Check]:
    """Compare every sum; an empty `differences` means equal to the last unit."""
    books = {name: _budget(stage, name) for name in stage.names}
    pool = _budget(stage, "coordinator")
    events = (
        stage.control("coordinator")
        .ListUsage(pb.ListUsageRequest(limit_count=ROWS_MAX), timeout=60)
        .events
    )
    hours = (
        stage.control("coordinator")
        .ListUsage(pb.ListUsageRequest(group_by=["task_class"]), timeout=60)
        .groups
    )
    ended = [each for each in (*books.values(), pool) if each.reserved]
    return [
        _check("settled at each daemon", len(books), _daemons(tally, books)),
        _check("settled at the coordinator", 1, _coordinator(tally, books, pool)),
        _check("the limit is kept", 1, _limit(pool, view)),
        _check("nothing left reserved", len(books) + 1, (f"{each.reserved}" for each in ended)),
        _check("usage events, each once", len(tally.costs), _events(tally, events)),
        _check("hourly sums", 1, _hours(tally, hours)),
    ]


def _budget(stage: Stage, name: str) -> pb.BudgetStatus:
    request = pb.ListBudgetsRequest(budget=BUDGET)
    rows = stage.control(name).ListBudgets(request, timeout=30, wait_for_ready=True).budgets
    return rows[0] if rows else pb.BudgetStatus(budget=BUDGET)


def _check(name: str, count: int, differences: Iterable[str]) -> Check:
    return Check(name, count, tuple(differences))


def _daemons(tally: Tally, books: dict[str, pb.BudgetStatus]) -> Iterator[str]:
    for name, counted in tally.by_daemon.items():
        if books[name].settled != counted.cost_nusd:
            yield f"{name}: its agents paid {counted.cost_nusd} nusd, it has {books[name].settled}"


def _coordinator(
    tally: Tally, books: dict[str, pb.BudgetStatus], pool: pb.BudgetStatus
) -> Iterator[str]:
    at_daemons = sum(each.settled for each in books.values())
    if not pool.settled == at_daemons == tally.spent_nusd:
        yield (
            f"agents paid {tally.spent_nusd} nusd, daemons settled {at_daemons}, the coordinator "
            f"{pool.settled}"
        )


def _limit(pool: pb.BudgetStatus, view: View) -> Iterator[str]:
    most = max(view.most_used_nusd, pool.settled + pool.reserved)
    if most > pool.limit:
        yield f"{amount(most, pool.unit)} of {format_nusd(pool.limit)} were used"


def _events(tally: Tally, events: Iterable[pb.UsageEvent]) -> Iterator[str]:
    found = Counter(event.reservation_id for event in events)
    twice = sum(count > 1 for count in found.values())
    if twice:
        yield f"{twice} calls are stored more than once"
    lost = tally.costs.keys() - found.keys()
    unknown = found.keys() - tally.costs.keys()
    if lost or unknown:
        yield f"{len(lost)} calls are not stored, {len(unknown)} were never made"
    wrong = [
        event.reservation_id
        for event in events
        if event.cost_nusd != tally.costs.get(event.reservation_id, event.cost_nusd)
    ]
    if wrong:
        yield f"{len(wrong)} calls are stored at another cost"


def _hours(tally: Tally, groups: Iterable[pb.UsageGroup]) -> Iterator[str]:
    sums = [(group.calls_count, group.cost_nusd) for group in groups]
    theirs = tuple(map(sum, zip(*sums, strict=True))) or (0, 0)
    ours = (len(tally.costs), tally.spent_nusd)
    if theirs != ours:
        yield f"calls and nusd: agents {ours}, hourly sums {theirs}"
