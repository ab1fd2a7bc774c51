"""A fleet of daemons, its coordinators and their database, drawn from one seed."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fleet_checks import UsageCheck, lease_problems, pool_problems, window_problems
from fleet_hosts import Host, HostClock, Killed, Member
from fleet_net import END, Link, name_down, name_up
from fleet_policies import (
    CALLS_PER_MINUTE,
    CLIENTS_CALLS_PER_MINUTE,
    CLIENTS_LIMITS_CENTS,
    FAIL_MODES,
    LIMITS_CENTS,
    compiled,
    grant_token,
    policy_text,
)
from fleet_replicas import Database, Replica, drive
from fleet_truth import FleetTruth, name_of

from costd.coordinator.exchange import Span
from costd.coordinator.reception import Reception
from costd.daemon.fleet.member import RECEIPTS
from costd.daemon.fleet.remembered import Remembered
from costd.daemon.fleet.tenancy import Tenancy
from costd.engine.changes import Family
from costd.errors import CostdError, InvalidAsk, StoreUnavailable
from costd.model.time import NS_PER_S
from costd.testing.fleet_old_rows import MemoryOldRows
from costd.wire.pb import fleet_pb2 as pb

START_NS = 1_772_409_540 * NS_PER_S
"""A minute before a midnight in UTC."""
OFF_NS_MAX = 2_500_000_000
"""How far clocks are off, so that no two are further apart than the skew that is allowed."""
DRIFT_MAX = 0.04
"""How much faster or slower a host's elapsed clock runs: less than half of the tenure's margin."""
TRACE_KEPT = 400


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The classes under test; a planted bug puts another in place of one."""

    tenancy: type = Tenancy
    reception: type = Reception
    old_rows: type = MemoryOldRows


class World:
    """Everything there is in one order of events."""

    def __init__(self, seed, folder: Path, parts=None):
        self.seed, self.folder, self.parts = seed, folder, parts or Parts()
        self.rng = rng = random.Random(seed)
        self.true_ns = START_NS + rng.choice((0, 0, 43_000)) * NS_PER_S + rng.randrange(NS_PER_S)
        self.span = Span()
        self.problems, self.seen, self.trace = [], Counter(), []
        self.truth, self.usage_check = FleetTruth(), UsageCheck()
        self.fail_mode = rng.choice(FAIL_MODES)
        self.halts = rng.random() < 0.2
        self.token = grant_token(seed) if rng.random() < 0.4 else ""
        """An override grant that agents have, where they do."""
        self.has_clients = rng.random() < 0.5
        """Whether processes draw calls by themselves."""
        self.limits_cents = CLIENTS_LIMITS_CENTS if self.has_clients else LIMITS_CENTS
        self.limit_cents = rng.choice(self.limits_cents)
        self._ids = itertools.count(1)
        self.waiters = []
        self.unheard = {}
        """Daemons that have not told all since the database was set back; where they have enrolled,
        with the epoch and the report that does."""
        self.admitted = {}
        """By daemon, the epoch of what it was welcomed with since then."""
        self.faded = set()
        """Daemons that were forgotten, and have not come back."""
        self.is_healed = False
        self.drill_id = ""
        self.drills = {}
        """By drill: daemons that confirmed."""
        self.database = Database(self)
        self.database.old = self.parts.old_rows(self.database)
        drive(self.store_policy(self.policy))
        self.tracker = next(
            tag
            for tag, rule in compiled(self.policy).budgets.items()
            if rule.budget.budget_id == "seen"
        )
        self.sites = [
            (f"coordinator-{index}", HostClock(self, off_ns=self.some_skew())) for index in range(2)
        ]
        self.replicas = [None, None]
        self.links = []
        for index in range(2):
            self.start_replica(index)
        self.hosts = [
            Host(
                self,
                f"host-{index}",
                off_ns=self.some_skew(),
                rate=1 + rng.uniform(-DRIFT_MAX, DRIFT_MAX),
                is_durable=rng.random() < 0.5,
            )
            for index in range(rng.randrange(3, 6))
        ]
        for host in self.hosts:
            self.start_member(host)

    # ---- telling -----------------------------------------------------------------------------

    def saw(self, what, count=1):
        self.seen[what] += count

    def note(self, text):
        """Write a line of the trace."""
        self.trace.append(f"{(self.true_ns - START_NS) / 1e9:10.3f} {text}")
        if len(self.trace) > 2 * TRACE_KEPT:
            del self.trace[:TRACE_KEPT]

    def some_skew(self):
        return self.rng.randrange(-OFF_NS_MAX, OFF_NS_MAX)

    # ---- policies ----------------------------------------------------------------------------

    @property
    def policy(self):
        return policy_text(
            self.limit_cents,
            fail_mode=self.fail_mode,
            halts=self.halts,
            calls_count=CLIENTS_CALLS_PER_MINUTE if self.has_clients else CALLS_PER_MINUTE,
        )

    def store_policy(self, text):
        return self.database.publish_policy(
            revision=f"r{len(self.database.policies) + 1}",
            yaml=text,
            actor="ops",
            at_ns=self.true_ns,
        )

    async def publish(self, *_, **__):
        """Stand in for `Publishing`, which the world does by itself."""
        raise NotImplementedError

    def texts(self):
        """Policies that are in force at some replica, or will be."""
        live = [replica for replica in self.replicas if replica is not None]
        return [
            self.database.policies[-1].yaml,
            *(replica.reception.published.message.yaml for replica in live),
        ]

    # ---- coordinators ------------------------------------------------------------------------

    def start_replica(self, index):
        """Start one on what the database has; without a database there is no start."""
        if not self.database.is_up or self.replicas[index] is not None:
            return
        name, clock = self.sites[index]
        self.replicas[index] = Replica(self, name, clock, self.folder / f"{name}.journal")

    def replica_died(self, index):
        replica, self.replicas[index] = self.replicas[index], None
        self.note(f"{replica.name} dies, {'in' if replica.running else 'between'} transactions")
        self.saw("coordinators killed in a transaction", replica.running is not None)
        self.saw("coordinators killed")
        replica.die()

    def ended(self, link, error):
        """Note why a replica ends a stream; a stream that nobody disturbed gives no reason."""
        self.note(f"{link.replica.name} ends the stream of {link.host.name}: {error}")
        self.saw(f"streams ended by {type(error).__name__}")
        moved_on = "enrolled on another stream" in str(error)
        if link.was_disturbed or moved_on or link.host.name in self.unheard:
            return
        if isinstance(error, InvalidAsk):
            self.problems.append(f"{link.host.name} was refused: {error}")

    def committed(self, rows, granted, *, lends_from_ns):
        """Look at what a transaction has just written."""
        self.problems += window_problems(self, granted)
        for each in rows.written_daemons:
            self.admitted[each] = rows.daemons[each].epoch
        back = self.faded & rows.written_daemons
        self.saw("forgotten daemons that came back", len(back))
        self.faded -= back
        for key, daemon_id in granted:
            self.truth.limit_in_force(key, self.texts())
            if rows.pools[key].changed_ns >= lends_from_ns:
                self.truth.forgotten.lent(key)
            else:
                self.problems.append(f"{daemon_id} was granted some of {name_of(key)} too early")

    def drilled(self, connection, message):
        self.drills.setdefault(message.drill_id, set()).add(connection.daemon_id)
        self.saw("drills confirmed")

    # ---- daemons -----------------------------------------------------------------------------

    def start_member(self, host):
        """Start a daemon on what the one before left; it may die while it starts."""
        if not self.is_healed and self.rng.random() < 0.1:
            host.fuse.moments_left = self.rng.randrange(1, 14)
        try:
            host.member = Member(host, self.parts)
        except Killed:
            self.host_died(host)
        except StoreUnavailable:
            host.member = None

    def host_died(self, host):
        """Forget what was in the daemon's memory; what it had sent may arrive yet."""
        self.note(f"{host.name} dies")
        self.saw("daemons killed -9")
        host.member = None
        host.fuse.moments_left = None
        if host.link is not None:
            host.link.hang_up(lost_up=self.rng.random() < 0.5)
            host.link = None
        for call in self.truth.calls:
            if call.host is host and not call.is_lost:
                held = host.disk.get(Family.RESERVATIONS, call.reservation_id)
                if held is not None:  # it is forgotten a day after it ended
                    self.truth.changing(call)
                    call.follow(held)
                    self.truth.changed(call)

    def runs(self, host):
        """Whether a daemon's process does anything now."""
        return host.member is not None and host.stopped_until_ns <= self.true_ns

    def at(self, host, act, *arguments, **named):
        """Have a daemon do something, which it may not survive; the answer, or its error."""
        try:
            return act(*arguments, **named)
        except Killed:
            self.host_died(host)
            return None
        except CostdError as error:
            return error

    def join(self, host):
        """Open a stream to some replica; where nobody listens, nothing happens."""
        live = [replica for replica in self.replicas if replica is not None]
        if not live:
            return
        replica = self.rng.choice(live)
        link = host.link = Link(host, replica)
        self.links.append(link)
        replica.links.append(link)
        self.note(f"{host.name} joins {replica.name}")
        self.at_stream(host, host.member.tenancy.connected, link.from_member)

    def at_stream(self, host, act, *arguments):
        """Do what belongs to a stream: an error ends it."""
        error = self.at(host, act, *arguments)
        if isinstance(error, CostdError) and host.link is not None:
            self.note(f"{host.name} ends its stream: {error}")
            self.leave(host)

    def leave(self, host):
        """End a stream on the daemon's side."""
        link, host.link = host.link, None
        link.hang_up(lost_up=self.rng.random() < 0.6)
        self.at(host, host.member.tenancy.disconnected)

    def tick_member(self, host):
        if not self.runs(host):
            return
        self.at_stream(host, host.member.tick)
        link = host.link
        if (
            link is not None
            and link.silent_since_ns
            and (self.true_ns - link.silent_since_ns > 5 * NS_PER_S)
        ):
            self.note(f"{host.name} has heard nothing for 5 s")
            self.leave(host)

    def host(self):
        running = [host for host in self.hosts if self.runs(host)]
        return self.rng.choice(running) if running else None

    def replica(self):
        live = [replica for replica in self.replicas if replica is not None]
        return self.rng.choice(live) if live else None

    # ---- the network -------------------------------------------------------------------------

    def ways(self):
        """Every message that may arrive now, and every transaction that may go on."""
        found = []
        for link in self.links:
            if link.stalled_until_ns > self.true_ns:
                continue
            if link.up and not link.waits and link.replica in self.replicas:
                found.append((self.carry_up, link))
            if link.down and (not link.is_heard or self.runs(link.host)):
                found.append((self.carry_down, link))
        for replica in self.replicas:
            if replica is not None and replica.is_busy:
                found += [(self.work, replica)] * 2
            if replica is not None and replica.notices:
                found.append((self.hear_notice, replica))
        return found

    def carry_up(self, link):
        self.note(f"{link.host.name} -> {link.replica.name}: {name_up(link.up[0])}")
        link.replica.read(link)

    def carry_down(self, link):
        raw, host = link.down.popleft(), link.host
        if not link.is_heard or host.link is not link:
            return
        link.silent_since_ns = 0
        self.note(f"{host.name} <- {link.replica.name}: {name_down(raw)}")
        self.saw("leases recalled", name_down(raw) == "recall")
        if raw == END:
            self.leave(host)
        else:
            message = pb.ToDaemon.FromString(raw)
            refuses = host.fuse.refuses
            self.at_stream(host, host.member.heard, message)
            is_refused = host.fuse.refuses < refuses and message.WhichOneof("message") in RECEIPTS
            self.saw("receipts that a full disk did not take", is_refused)
            if message.welcome.epoch and message.welcome.epoch == self.admitted.get(host.name):
                self.admitted_anew(host, message.welcome.epoch)

    def admitted_anew(self, host, epoch):
        """Note which report ends what a daemon has to tell to a database that was set back."""
        tenancy = host.member.tenancy if host.member is not None else None
        # A daemon that could not write the Admittance down has not been admitted.
        if host.name in self.unheard and tenancy is not None and tenancy.epoch == epoch:
            self.unheard[host.name] = (tenancy.epoch, tenancy.reports.sequence)

    def hear_all(self):
        """Note who has told all."""
        for host in self.hosts:
            known = Remembered.read(host.disk) if self.unheard.get(host.name) else None
            if known is None:
                continue
            if (known.heard_epoch, known.heard_sequence) >= self.unheard[host.name]:
                del self.unheard[host.name]
                if not host.has_lost:
                    self.truth.forgotten.heard(host.name)

    def work(self, replica):
        replica.work()

    def hear_notice(self, replica):
        replica.hear_notice()

    # ---- checks ------------------------------------------------------------------------------

    def check(self):
        """What must hold after every step."""
        database = self.database
        self.hear_all()
        names = [host.name for host in self.hosts]
        self.problems += pool_problems(database, database.changed, names)
        self.problems += self.usage_check.problems(database)
        self.problems += self.truth.problems()
        for host in self.hosts:
            if database.changed or host.disk.is_changed:
                is_unheard = host.name in self.unheard
                self.problems += lease_problems(database, host, is_unheard=is_unheard)
            if host.member is not None and host.disk.is_changed:
                self.problems += host.member.problems()
                host.disk.is_changed = False
        database.changed = set()
        for replica in self.replicas:
            if replica is not None:
                self.problems += replica.problems()

    def forget_links(self):
        """Forget streams that are over on both sides."""
        for link in self.links:
            if link.replica not in self.replicas:
                link.up.clear()
                if link.is_served:
                    link.drop(lost_down=False)
        self.links = [link for link in self.links if not link.is_over]
        for replica in self.replicas:
            if replica is not None:
                replica.links = [link for link in replica.links if not link.is_over]
