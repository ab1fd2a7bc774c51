"""The fleet's demo without its processes: the screen in several sizes, the acts, the checks."""

import asyncio
import io
import re
import socket
import threading
from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from costd.cli.demo.fleet.books import BUDGET, Tally, View, _coordinator, _daemons, _events, _limit
from costd.cli.demo.fleet.crew import Call, Order
from costd.cli.demo.fleet.links import Links
from costd.cli.demo.fleet.perform import Outcome
from costd.cli.demo.fleet.screen import PlainScreen, Show, draw
from costd.cli.demo.fleet.stage import names
from costd.cli.demo.fleet.story import Act, Fact, Mark, acts
from costd.cli.demo.verify import Check
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb import fleet_control_pb2 as fpb

DOLLAR = 1_000_000_000


class Process:
    """A process that runs or does not."""

    def __init__(self):
        self.runs, self.starts_count, self.done = True, 1, []

    def kill(self):
        self.runs = False
        self.done.append("kill")

    def start(self):
        self.runs = True
        self.done.append("start")


class Cuttable:
    """Links without network."""

    def __init__(self):
        self.lost = set()
        self.cut, self.mend, self.is_cut = self.lost.add, self.lost.discard, self.lost.__contains__


def call(daemon, number=0, reason="OK", cost=DOLLAR // 100, **more):
    held = {"reservation_id": f"{daemon}-{number}", "cost_nusd": cost} if reason == "OK" else {}
    return Call(daemon=daemon, verdict="allow" if held else "deny", reason=reason, **held, **more)


@pytest.fixture
def stage():
    them = names(8)
    return SimpleNamespace(
        names=them,
        daemons={name: Process() for name in them},
        coordinator=Process(),
        links=Cuttable(),
    )


@pytest.fixture
def tally(tmp_path, stage):
    tally = Tally(tmp_path / "journal.jsonl", stage.names)
    yield tally
    tally.close()


@pytest.fixture
def write(tally, tmp_path):
    """Let agents write into their journal."""

    def write(*calls, at_ns=0):
        with (tmp_path / "journal.jsonl").open("ab") as journal:
            for each in calls:
                journal.write(msgspec.json.encode(each) + b"\n")
        tally.read(at_ns)

    return write


@pytest.fixture
def view(stage):
    """The coordinator answers, and everybody is well."""
    view = View(silent_count=0)
    view.daemons = {name: fpb.DaemonStatus(name=name, attached=True) for name in stage.names}
    view.leases = {name: fpb.LeaseStatus(daemon=name, unused=DOLLAR) for name in stage.names}
    view.pool = pb.BudgetStatus(budget=BUDGET, unit="nusd", limit=64 * DOLLAR)
    return view


@pytest.fixture
def show(stage, tally, view, write):
    write(*(call(name, number) for name in stage.names for number in range(50)))
    show = Show(stage, tally, view, title="A title", caption="A caption " * 20, place="act 1 of 5")
    for at in range(30):
        show.tell(f"something happened, number {at} " * 5)
    return show


def printed(show, width, height):
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(draw(show, width, height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (200, 60)])
def test_a_frame_fits_its_terminal_and_shows_every_daemon(show, stage, size):
    lines = printed(show, *size)
    assert len(lines) <= size[1]
    assert max(map(len, lines)) <= size[0]
    for name in stage.names:
        assert any(
            re.match(rf"{name} +spending +50 +· +\$0.50 +\$1.00 +█+▒+", each) for each in lines
        )
    assert any("$4.00 of $64 spent, $8.00 lent out" in each for each in lines)
    assert "number 29" in lines[-1]


def test_who_is_in_trouble_is_said(show, stage, view):
    stage.daemons["d1"].kill()
    stage.links.cut("d2")
    stage.links.cut("d3")
    view.daemons["d3"].attached = False
    view.daemons["d4"].attached = False
    text = "\n".join(printed(show, 100, 30))
    assert re.search(r"d1 +killed -9 ", text)
    assert re.search(r"d2 +cut off ", text)
    assert re.search(r"d3 +presumed spent ", text)
    assert re.search(r"d4 +starting ", text)
    stage.coordinator.kill()
    text = "\n".join(printed(show, 100, 30))
    assert re.search(r"coordinator +killed -9", text)
    assert re.search(r"d5 +on its own ", text)


def test_without_a_terminal_news_and_figures_are_lines(show):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    screen = PlainScreen(console)
    screen.show(show)
    screen.show(show)
    lines = console.file.getvalue().splitlines()
    assert sum("number 7 " in line for line in lines) == 1
    assert lines[-1] == (
        "  0.0 s  8 of 8 daemons spend, 200 calls/s, 400 paid, 0 refused, $4.00 of $64 spent"
    )


def test_a_journal_is_counted_while_it_grows(tally, write):
    write(call("d1", 1), call("d2", reason="NO_LEASE"))
    write(call("d1", 2, attempts_count=5), at_ns=NS_PER_S)
    assert tally.by_daemon["d1"].settled_count == 2
    assert tally.by_daemon["d2"].refused == {"NO_LEASE": 1}
    assert (tally.spent_nusd, tally.repeated_count) == (2 * DOLLAR // 100, 1)
    assert tally.calls_per_s == 1


def test_facts_are_seen_in_order_and_stay_seen(tally, view):
    seen = {"first": False, "second": True}
    facts = [Fact(name, lambda *_, name=name: seen[name]) for name in seen]
    act = Act("title", "caption", Order(at_work=True), 1, facts=facts)
    assert act.look(tally, view) == []
    seen["first"] = True
    assert act.look(tally, view) == facts
    seen["first"] = False
    assert act.look(tally, view) == []
    assert act.complete


def test_a_mark_tells_what_came_after_it(tally, write):
    mark = Mark(tally)
    write(call("d1", 1))
    assert not mark.settled_since("d1")
    mark.set()
    assert not mark.settled_since("d1")
    write(call("d1", 2), call("d2", reason="NO_LEASE"))
    assert mark.settled_since("d1")
    assert mark.refused_since("d2")
    assert not mark.refused_since("d1")


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_acts_kill_and_revive_cut_and_mend(stage, tally, count):
    stage.names = names(count)
    play = acts(stage, tally)
    assert len(play) == 5
    for act in play:
        for step in act.steps:
            step.what()
    assert [process.runs for process in stage.daemons.values()] == [True] * 8
    assert stage.coordinator.done == ["kill", "start"]
    assert not stage.links.lost
    killed = [name for name, process in stage.daemons.items() if process.done]
    assert 1 <= len(killed) <= 2
    assert set(killed) <= set(stage.names)


def test_what_differs_is_found(tally, write, view):
    write(call("d1", 1), call("d2", 1))
    cent = DOLLAR // 100
    books = {name: pb.BudgetStatus() for name in tally.by_daemon}
    books["d1"].settled, books["d2"].settled = cent, cent
    pool = pb.BudgetStatus(unit="nusd", settled=2 * cent, limit=DOLLAR)
    good = [pb.UsageEvent(reservation_id=f"d{n}-1", cost_nusd=cent) for n in (1, 2)]
    assert not list(_daemons(tally, books))
    assert not list(_coordinator(tally, books, pool))
    assert not list(_limit(pool, view))
    assert not list(_events(tally, good))
    books["d2"].settled += 1
    assert len(list(_daemons(tally, books))) == 1
    assert len(list(_coordinator(tally, books, pool))) == 1
    view.most_used_nusd = DOLLAR + 1
    assert "$1.000000001 of $1.00 were used" in list(_limit(pool, view))
    twice = [*good, good[0]]
    assert list(_events(tally, twice)) == ["1 calls are stored more than once"]
    assert list(_events(tally, good[:1])) == ["1 calls are not stored, 0 were never made"]
    dear = [good[0], pb.UsageEvent(reservation_id="d2-1", cost_nusd=1)]
    assert list(_events(tally, dear)) == ["1 calls are stored at another cost"]


def outcome(**changes):
    fields = {
        "seed": 1,
        "daemons_count": 8,
        "calls_count": 10,
        "refused_count": 2,
        "repeated_count": 1,
        "total_nusd": DOLLAR,
        "limit_nusd": 2 * DOLLAR,
        "checks": [Check("the limit is kept", 1, ())],
        "facts": [("A partition", "they refused", True)],
        "elapsed_s": 2.0,
    }
    return Outcome(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The ledger adds up: 10 settled calls, $1.00 of $2.00"),
        ({"facts": [("A partition", "they refused", False)]}, "It did not happen: A partition"),
        ({"checks": [Check("sums", 1, ("d1 differs",))]}, "The ledger does not add up: sums."),
    ],
)
def test_the_end_says_whether_all_is_well(changes, said):
    console = Console(file=io.StringIO(), width=200, color_system=None)
    ended = outcome(**changes)
    ended.print(console)
    assert said in console.file.getvalue()
    assert ended.passed == (not changes) == ended.document()["passed"]


def test_nothing_passes_a_link_while_it_is_cut():
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    started, stop = threading.Event(), None
    port = 0

    async def serve():
        nonlocal port, stop
        stop = asyncio.Event()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    with (
        Links(["d1"], port) as links,
        socket.create_connection(("127.0.0.1", links.port("d1")), 10) as near,
    ):
        near.sendall(b"one")
        assert near.recv(100) == b"one"
        links.cut("d1")
        assert links.is_cut("d1")
        near.sendall(b"two")
        near.settimeout(0.1)
        with pytest.raises(TimeoutError):
            near.recv(100)
        near.settimeout(10)
        links.mend("d1")
        assert near.recv(100) == b"two"
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
