"""The daemon of the simulation: production code over a store in memory that outlives it."""

from functools import lru_cache

import msgspec

from costd.clock import downtime_ns
from costd.daemon.admission import AdmissionService
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.pages import FilePages, NoPages
from costd.daemon.control import ControlService
from costd.daemon.sweeper import Retention, Sweeper
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.errors import StoreUnavailable
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S, Now
from costd.policy import parse_policy
from costd.testing import MemoryStore

CLOCK_KEY = b"clock"


class Killed(BaseException):
    """The daemon's process ended at this moment, as by kill -9."""


class Fuse:
    """Ends the daemon between any two things that outlive it: commits, and writes to pages."""

    def __init__(self):
        self.moments_left = None
        self.refuses = False
        """Whether the disk has no room for the next commit."""

    def moment(self):
        if self.moments_left is not None:
            self.moments_left -= 1
            if self.moments_left <= 0:
                self.moments_left = None
                raise Killed


class Disk(MemoryStore):
    """The store; what was committed survives the daemon."""

    def __init__(self, fuse):
        super().__init__()
        self._fuse = fuse

    def commit(self, puts):
        if self._fuse.refuses:
            self._fuse.refuses = False
            raise StoreUnavailable("the disk is full; make room")
        self._fuse.moment()
        super().commit(puts)
        self._fuse.moment()

    def delete_range(self, family, start, end):
        self._fuse.moment()
        super().delete_range(family, start, end)


class SharedPages(FilePages):
    """The real files, with moments before and after each write."""

    def __init__(self, socket, fuse):
        self._fuse = fuse
        super().__init__(socket, mode=0o660)

    def bump(self):
        self._fuse.moment()
        generation = super().bump()
        self._fuse.moment()
        return generation

    def arm(self, name, slot, serial):
        is_armed = super().arm(name, slot, serial)
        self._fuse.moment()
        return is_armed


class DaemonClock:
    """What `SystemClock` does, over the simulated host's clocks."""

    def __init__(self, host, saved):
        self._host = host
        steady_ns = saved.steady_ns + downtime_ns(saved.wall_ns, host.wall_ns) if saved else 0
        self._offset_ns = steady_ns - host.steady_ns

    def now(self):
        return Now(self._host.wall_ns, self._offset_ns + self._host.steady_ns)


@lru_cache(maxsize=64)
def parsed(text):
    return parse_policy(text, "policy")


class PolicyText:
    """Where the policy comes from, in place of a file."""

    path = "policy"
    error = ""
    loaded_ns = 0

    def __init__(self, text):
        self.text = text
        self.ledger = None

    def reload(self, actor):
        self.ledger.swap_policy(parsed(self.text), actor=actor)


class Daemon:
    """One process of the daemon, from its start to its end."""

    def __init__(self, *, disk, fuse, host, socket, policy, closed_keep_s):
        raw = disk.get(Family.META, CLOCK_KEY)
        saved = msgspec.msgpack.decode(raw, type=Now) if raw else None
        self.disk, self.host = disk, host
        self.clock = DaemonClock(host, saved)
        self._save_clock()
        self.ledger = Ledger(disk, parsed(policy), self.clock, closed_keep_s=closed_keep_s)
        self.pages = SharedPages(socket, fuse) if socket else NoPages()
        self.desk = Desk(self.ledger, AllowanceBooks(self.ledger), self.pages)
        self.sweeper = Sweeper(self.ledger, Retention(), self.desk)
        self.admission = AdmissionService(self.ledger)
        self.source = PolicyText(policy)
        self.source.ledger = self.ledger
        self.control = ControlService(self.ledger, self.source, self.desk)
        self.stopped_until_ns = 0

    @property
    def is_stopped(self):
        return self.host.steady_ns < self.stopped_until_ns

    def tick(self):
        """Do what `Upkeep` does."""
        while self.sweeper.sweep() >= self.sweeper.retention.slice_count:
            pass
        self.ledger.recent_alerts.clear()
        if self.clock.now().steady_ns - self._saved_ns >= NS_PER_S:
            self._save_clock()

    def _save_clock(self):
        """Do what `Timekeeper` does."""
        now = self.clock.now()
        self.disk.commit([(Family.META, CLOCK_KEY, msgspec.msgpack.encode(now))])
        self._saved_ns = now.steady_ns

    def close(self):
        """Let go of what the operating system would take back."""
        if isinstance(self.pages, FilePages):
            self.pages.close()

    def problems(self):
        """Hold the books to their invariants, and the totals to the books."""
        disk, totals = self.disk, self.ledger.totals
        reservations = [held for _, held in disk.scan(Family.RESERVATIONS)]
        found = books_problems(disk.scan(Family.COUNTERS), reservations)
        held = [one for one in reservations if one.state is ReservationState.HELD]
        told = (totals.open_count, totals.reserved_nusd)
        counted = (len(held), sum(one.hold_nusd for one in held))
        if told != counted:
            found.append(f"the totals say (open, reserved) {told}, the reservations {counted}")
        out = {one.reservation_id for one in held if one.is_allowance}
        if out != self.desk.books.out.keys():
            found.append(f"{len(out)} allowances are open, {len(self.desk.books.out)} are known")
        return found
