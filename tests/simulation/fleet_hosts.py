"""A daemon's host in the fleet's simulation: its clocks, its disk, and the process that runs now."""

import msgspec
from fleet_policies import parsed
from sim_daemon import Fuse, Killed

from costd.clock import Stopped, downtime_ns
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.pages import NoPages
from costd.daemon.fleet.kills import put_in_force
from costd.daemon.fleet.member import RECEIPTS
from costd.daemon.fleet.tenancy import Situation
from costd.daemon.sweeper import Retention, Sweeper
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.errors import StoreUnavailable
from costd.model.policy import PolicySet
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S, Now
from costd.testing import MemoryStore
from costd.wire.pb import fleet_pb2 as pb

CLOCK_KEY = b"clock"
POLICY_KEY = b"fleet_policy"
NO_POLICY = PolicySet(revision="none")

__all__ = ["Disk", "Fuse", "Host", "HostClock", "Killed", "Member", "saved_clock"]


class HostClock:
    """One host's clocks over true time: a wall clock that is off, an elapsed one that drifts."""

    def __init__(self, world, *, off_ns=0, rate=1.0):
        self._world = world
        self.off_ns = off_ns
        self.rate = rate
        self._boot_ns = world.true_ns

    @property
    def wall_ns(self):
        return self._world.true_ns + self.off_ns

    @property
    def steady_ns(self):
        """Nanoseconds since the boot, as CLOCK_BOOTTIME tells them."""
        return round((self._world.true_ns - self._boot_ns) * self.rate)

    def reboot(self):
        self._boot_ns = self._world.true_ns

    def now(self):
        """Tell the time to a coordinator."""
        return Now(self.wall_ns, self.steady_ns)


class Disk(MemoryStore):
    """A store whose last commits are lost with the power, unless they were synced."""

    def __init__(self, fuse):
        super().__init__()
        self._fuse = fuse
        self._unsynced = []
        """For each commit, what stood there before."""
        self.is_durable = False
        self.is_changed = False
        """Whether it was written to since somebody last looked."""

    def commit(self, puts):
        if self._fuse.refuses:
            self._fuse.refuses -= 1
            raise StoreUnavailable("the disk is full; make room")
        self._fuse.moment()
        self.is_changed = True
        before = {(family, key): self._values[family].get(key) for family, key, _ in puts}
        super().commit(puts)
        if not self.is_durable:
            self._unsynced.append(before)
        self._fuse.moment()

    def delete_range(self, family, start, end):
        before = {(family, key): value for key, value in self.scan(family, start, end)}
        super().delete_range(family, start, end)
        if not self.is_durable:
            self._unsynced.append(before)

    def sync(self):
        self._unsynced.clear()

    @property
    def unsynced_count(self):
        return len(self._unsynced)

    def lose(self, count):
        """Forget the last commits, as a power failure does."""
        for _ in range(count):
            before = self._unsynced.pop()
            super().commit([(family, key, value) for (family, key), value in before.items()])
        self._unsynced.clear()


class MemberClock:
    """What `SystemClock` does, over the simulated host's clocks."""

    def __init__(self, host, saved):
        self._clock = clock = host.clock
        self.boot_id = host.boot_id
        self.same_boot = saved is not None and saved.boot_id == self.boot_id
        steady_ns = 0
        if self.same_boot:
            steady_ns = saved.steady_ns + clock.steady_ns - saved.elapsed_ns
        elif saved is not None:
            steady_ns = saved.steady_ns + downtime_ns(saved.wall_ns, clock.wall_ns)
        self._offset_ns = steady_ns - clock.steady_ns

    def now(self):
        return Now(self._clock.wall_ns, self._offset_ns + self._clock.steady_ns)


class MemberTime:
    """What `Timekeeper` does."""

    def __init__(self, host):
        self._host = host
        saved = saved_clock(host.disk)
        self.clock = MemberClock(host, saved)
        self.rebooted = saved is not None and not self.clock.same_boot
        self.stopped_cleanly = saved is None or host.was_stopped_cleanly
        self.save()
        host.disk.sync()
        host.was_stopped_cleanly = False

    def save(self):
        host, now = self._host, self.clock.now()
        saved = Stopped(now.wall_ns, now.steady_ns, host.boot_id, host.clock.steady_ns)
        host.disk.commit([(Family.META, CLOCK_KEY, msgspec.msgpack.encode(saved))])
        self.saved_ns = now.steady_ns


def saved_clock(disk):
    """Read where the last run left its clock."""
    raw = disk.get(Family.META, CLOCK_KEY)
    return msgspec.msgpack.decode(raw, type=Stopped) if raw else None


class Host:
    """A machine: what outlives the daemon's process."""

    def __init__(self, world, name, *, off_ns, rate, is_durable):
        self.name = name
        self.clock = HostClock(world, off_ns=off_ns, rate=rate)
        self.fuse = Fuse()
        self.disk = Disk(self.fuse)
        self.disk.is_durable = is_durable
        self.boots = 1
        self.was_stopped_cleanly = False
        self.member = None
        self.link = None
        self.stopped_until_ns = 0
        """In true time; meanwhile its process does nothing, as after SIGSTOP."""
        self.has_lost = False
        """Whether a power failure took commits; its books cannot tell the whole truth."""
        self.is_exact = True
        """Whether it has heard all that its clients said, and they all that it granted."""
        self.drills = set()

    @property
    def boot_id(self):
        return f"{self.name}/{self.boots}"


class Member:
    """One process of a daemon, from its start to its end: what `serve` and `fleet` wire up.

    The streams, threads and tasks of those are the world's; `heard_policy` does what
    `FleetPolicy.heard` does, without its thread.
    """

    def __init__(self, host, parts):
        disk = host.disk
        self.host, self.disk = host, disk
        self.time = MemberTime(host)
        self.clock = self.time.clock
        raw = disk.get(Family.META, POLICY_KEY)
        kept = pb.PublishedPolicy.FromString(raw) if raw else pb.PublishedPolicy()
        policy = parsed(kept.yaml) if raw else NO_POLICY
        self.ledger = Ledger(disk, policy, self.clock, in_fleet=True)
        self.ledger.trust = self.ledger.trust._replace(claims=frozenset({"*"}))
        self.desk = Desk(self.ledger, AllowanceBooks(self.ledger), NoPages())
        self.sweeper = Sweeper(self.ledger, Retention(usage_stored_s=10**9), self.desk)
        self.situation = Situation(name=host.name, boot_id=host.boot_id, policy_number=kept.number)
        time = self.time
        self.tenancy = parts.tenancy(
            self.ledger,
            daemon_id=host.name,
            situation=self.situation,
            lost_by_reboot=not disk.is_durable and not time.stopped_cleanly,
        )
        self.tenancy.held.recalls = self.desk
        self.desk.borrow = self.tenancy.ask

    def tick(self):
        """Do what `Upkeep` and `Member` do some times a second."""
        while self.sweeper.sweep() >= self.sweeper.retention.slice_count:
            pass
        self.ledger.recent_alerts.clear()
        if self.clock.now().steady_ns - self.time.saved_ns >= NS_PER_S:
            self.time.save()
        self.tenancy.tick()

    def heard(self, message):
        """Do what `Member` and `Fleet` do with what the coordinator says."""
        kind = message.WhichOneof("message")
        if kind == "policy":
            self.heard_policy(message.policy)
        elif kind == "kills":
            put_in_force(self.ledger, message.kills)
            self.situation.kills_version = message.kills.version
        elif kind == "drill":
            confirmed = pb.DrillConfirmation(drill_id=message.drill.drill_id, finished=True)
            self.host.link.from_member(pb.ToCoordinator(drilled=confirmed))
        else:
            try:
                self.tenancy.receive(message)
            except StoreUnavailable:
                if kind not in RECEIPTS:
                    raise

    def heard_policy(self, message):
        """Put a published policy in force, unless it is older than what is."""
        if message.number <= self.situation.policy_number:
            return
        self.ledger.swap_policy(parsed(message.yaml), actor=message.actor)
        self.disk.commit([(Family.META, POLICY_KEY, message.SerializeToString())])
        self.situation.policy_number = message.number
        self.tenancy.policy_changed()

    def problems(self):
        """Hold its books to the invariants of a single daemon's: I1, I2 and F2."""
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
        return [f"{self.host.name}: {problem}" for problem in found]
