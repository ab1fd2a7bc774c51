"""What tests of allowances need: grants, a session without I/O, and a scripted Attach server."""

# ruff: noqa: N802 - gRPC looks for methods by these names

import queue
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from costd_client.pb import admission_pb2 as pb
from costd_client.session import Session
from costd_client.surroundings import Surroundings

NS = 10**9
MAGIC = b"costdpg1"
PRICE = pb.PriceTable(scale=1_000_000, bands=[pb.PriceBand(input=2_000_000, output=10_000_000)])
"""2 nusd a prompt token, 10 an output token."""


def allowance(number=1, **changes):
    """Write an allowance of 100 calls and 1,000,000 nusd for 4 seconds."""
    fields = {
        "allowance_id": f"{number:032x}",
        "decision": pb.Decision(
            verdict=pb.VERDICT_ALLOW,
            reason=pb.REASON_OK,
            reservation_id=f"{number:032x}",
            provider="p",
            model="m",
            tier="standard",
            policy_revision="rev1",
        ),
        "amount_nusd": 1_000_000,
        "calls_count": 100,
        "lifetime": {"seconds": 4},
        "call_ttl": {"seconds": 600},
        "price_table": PRICE,
        "slot": -1,
        "serial": 1_000 + number,
    }
    fields |= changes
    return pb.Allowance(**{name: value for name, value in fields.items() if value is not None})


class World:
    """Time as a number, ids in order, and no files unless given."""

    def __init__(self, map_pages=None, open_journal=None):
        self.now_ns = 1_000 * NS
        self.ids = 0
        self.around = Surroundings(
            now_ns=lambda: self.now_ns,
            wall_ns=lambda: self.now_ns + 10**18,
            new_id=self.new_id,
            map_pages=map_pages,
            open_journal=open_journal,
        )

    def new_id(self):
        self.ids += 1
        return f"session-or-request-{self.ids:04d}"


@dataclass
class Books:
    """A daemon's side of one session: grants what is asked, books reports once and in order."""

    scope_labels: list = field(default_factory=lambda: ["team"])
    generation: int = 7
    sequence: int = 0
    granted: dict = field(default_factory=dict)
    drawn: dict = field(default_factory=dict)
    settled: Counter = field(default_factory=Counter)
    settlements: list = field(default_factory=list)
    returned: list = field(default_factory=list)
    numbered: int = 0

    def welcome(self, hello, **changes):
        good = [held for held in hello.held_allowance_ids if held in self.granted]
        return pb.Welcome(
            **{
                "scope_labels": self.scope_labels,
                "report_sequence": self.sequence,
                "generation": self.generation,
                "good_allowance_ids": good,
                **changes,
            }
        )

    def grant(self, request, **changes):
        self.numbered += 1
        granted = allowance(self.numbered, **changes)
        self.granted[granted.allowance_id] = granted
        return pb.AllowanceGrant(request_id=request.request_id, allowance=granted)

    def book(self, report):
        if report.sequence > self.sequence:
            assert report.sequence == self.sequence + 1, "reports come in order"
            self.sequence = report.sequence
            self._book(report)
        return pb.Acknowledgement(sequence=report.sequence)

    def _book(self, report):
        for drawn in report.drawn:
            sums = (drawn.calls_count, drawn.amount_nusd, drawn.tokens_count)
            before = self.drawn.get(drawn.allowance_id, (0, 0, 0))
            granted = self.granted[drawn.allowance_id]
            assert all(new >= old for new, old in zip(sums, before, strict=True)), "sums fell"
            assert sums[0] <= granted.calls_count
            assert sums[1] <= granted.amount_nusd
            self.drawn[drawn.allowance_id] = sums
        for one in report.settlements:
            labels = report.labels[one.labels_index - 1].labels if one.labels_index else {}
            self.settled[one.ask_id] += 1
            self.settlements.append((one, dict(labels)))
        self.returned += report.returned_allowance_ids


class Wire:
    """A session and its books with nothing between them but this test's thread."""

    def __init__(self, map_pages=None, *, open_journal=None, **settings):
        self.world = World(map_pages, open_journal)
        self.session = Session(self.world.around, **settings)
        self.books = Books()
        self.sent = []
        self.answers = True

    def open(self, **welcome):
        [hello] = self.session.opened()
        self.sent.append(hello)
        self.say(welcome=self.books.welcome(hello.hello, **welcome))

    def say(self, **message):
        self.session.received(pb.DaemonMessage(**message))

    def poll(self, after_s=0, **grant):
        """Let time pass, carry what the session says, and answer it."""
        self.world.now_ns += round(after_s * NS)
        said = self.session.poll()
        self.sent += said
        for message in said if self.answers else ():
            match message.WhichOneof("message"):
                case "request":
                    self.say(grant=self.books.grant(message.request, **grant))
                case "report":
                    self.say(acknowledgement=self.books.book(message.report))
        return said

    def requests(self):
        return [one.request for one in self.sent if one.HasField("request")]

    def reports(self):
        return [one.report for one in self.sent if one.HasField("report")]


def write_pages(folder, *, generation=7, slots=4, name="page"):
    """Make both pages as the daemon does; returns their paths."""
    daemon, client = folder / f"{name}.daemon", folder / f"{name}.client"
    daemon.write_bytes(struct.pack("<8sq48x", MAGIC, generation))
    client.write_bytes(struct.pack("<8sq48x", MAGIC, slots) + bytes(64 * slots))
    return daemon, client


def poke(path, index, value):
    """Write one word of a page, as the daemon does."""
    with path.open("r+b") as file:
        file.seek(index * 8)
        file.write(struct.pack("<q", value))


class AttachScript:
    """`Attach` for the fake daemon: welcomes, grants, acknowledges, and remembers."""

    def __init__(self, *, pages=None, **grant):
        self.grant = grant
        self.pages = pages
        self.books = {}
        self.hellos = []
        self.reports = []
        self.refuses_scopes = False
        self.acknowledges = True
        self.streams = []
        self._changed = threading.Condition()

    def Attach(self, messages, context):
        out = queue.SimpleQueue()
        with self._changed:
            self.streams.append(out)
        reader = threading.Thread(target=self._read, args=(messages, out), daemon=True)
        reader.start()
        context.add_callback(lambda: out.put(None))
        while (message := out.get()) is not None:
            yield message

    def say(self, **message):
        """Say something on the newest stream."""
        self.streams[-1].put(pb.DaemonMessage(**message))

    def hang_up(self):
        """End the newest stream."""
        self.streams[-1].put(None)

    def wait(self, until, timeout_s=10):
        """Wait until something was heard."""
        with self._changed:
            assert self._changed.wait_for(lambda: until(self), timeout_s)

    @property
    def settlements(self):
        return [one for books in self.books.values() for one in books.settlements]

    @property
    def returned(self):
        return [one for books in self.books.values() for one in books.returned]

    def drawn_calls(self):
        return sum(sums[0] for books in self.books.values() for sums in books.drawn.values())

    def _read(self, messages, out):
        try:
            books = None
            for message in messages:
                with self._changed:
                    books = self._hear(books, message, out)
                    self._changed.notify_all()
        except Exception:  # noqa: BLE001 - the stream broke off
            out.put(None)

    def _hear(self, books, message, out):
        match message.WhichOneof("message"):
            case "hello":
                self.hellos.append(message.hello)
                books = self.books.setdefault(message.hello.session_id, Books())
                pages = {}
                if self.pages and message.hello.maps_pages:
                    pages = {"daemon_page": str(self.pages[0]), "client_page": str(self.pages[1])}
                out.put(pb.DaemonMessage(welcome=books.welcome(message.hello, **pages)))
            case "request" if self.refuses_scopes:
                grant = pb.AllowanceGrant(request_id=message.request.request_id)
                grant.retry_after.FromSeconds(60)
                out.put(pb.DaemonMessage(grant=grant))
            case "request":
                grant = self.grant
                if callable(grant.get("slot")):
                    grant = grant | {"slot": grant["slot"](books.numbered + 1)}
                out.put(pb.DaemonMessage(grant=books.grant(message.request, **grant)))
            case "report" if self.acknowledges:
                self.reports.append(message.report)
                out.put(pb.DaemonMessage(acknowledgement=books.book(message.report)))
            case "report":
                self.reports.append(message.report)
        return books


def eventually(draw, source="allowance", timeout_s=10):
    """Ask until the answer comes from where it should."""
    until = time.monotonic() + timeout_s
    while (decision := draw()).source != source:
        assert time.monotonic() < until, f"no decision of source {source}"
        time.sleep(0.002)
    return decision
