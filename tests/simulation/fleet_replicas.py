"""The coordinators of the fleet's simulation: replicas that may die over one database."""

from collections import deque

from fleet_net import END
from fleet_policies import compiled

from costd.coordinator.control import FleetControlService
from costd.coordinator.drills import Drills
from costd.coordinator.killbook import KillBook
from costd.coordinator.reception import Connection, Published, Received, check_order
from costd.coordinator.store import Notice, Topic
from costd.errors import CoordinatorUnavailable, CostdError
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_pb2 as pb

BATCH_COUNT_MAX = 20


class Moment:
    """Something that is awaited, and comes when the world says so."""

    def __await__(self):
        yield


def drive(coroutine):
    """Run a coroutine that waits for nothing but moments; returns what it returns."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


class Database(MemoryFleetStore):
    """One database for all replicas: it may be away, or commit and not be able to say so."""

    def __init__(self, world):
        super().__init__(wall_ns=lambda: world.true_ns)
        self._world = world
        self.is_up = True
        self.answers_lost = 0
        """So many of the next commits are written, and nobody is told."""
        self.began_ns = world.true_ns
        """When the transaction that commits now began: what it knows of the time."""
        self.lends_from_known_ns = 0
        """Until then the replica whose transaction goes on knows that it must learn."""
        self.wanted_in_flight = set()
        """Counters that the transaction under way is asked for, for calls in flight: (counter,
        daemon). Those calls may have ended once it commits."""
        self.changed = set()
        """Counters that were written since somebody last looked."""
        self.over = set()
        """Counters of runs that were forgotten, and may have begun anew."""
        self.renewed_ns = {}
        """By daemon, the true time at which its tenure was last renewed."""

    def check(self):
        if not self.is_up:
            raise CoordinatorUnavailable("the database is away")

    async def transact(self, work, *, daemon_ids=(), **named):
        """Do what the database does, with a moment before the commit and one after."""
        began_ns = self._world.true_ns
        await Moment()
        self.check()
        self.began_ns = began_ns
        locked = []

        def work_noted(rows):
            locked[:] = [rows, dict(rows.daemons), dict(rows.shares)]
            self.wanted_in_flight.clear()
            return work(rows)

        result = self.step(work_noted, daemon_ids=daemon_ids, **named)
        rows, daemons, shares = locked
        for each in rows.written_daemons:
            before = daemons.get(each)
            if before is None or rows.daemons[each].tenure_ends_ns != before.tenure_ends_ns:
                self.renewed_ns[each] = self.began_ns
        self.changed |= rows.written_pools
        granted = [
            each
            for each in sorted(rows.written_shares)
            if is_granted(shares.get(each), rows.shares[each], rows.daemons[each[1]])
        ]
        self._world.committed(rows, granted, lends_from_ns=self.lends_from_known_ns)
        await Moment()
        if self.answers_lost:
            self.answers_lost -= 1
            self._world.saw("commits whose outcome was not told")
            raise CoordinatorUnavailable("the connection was lost while it committed")
        return result

    def has_forgotten(self, key, daemon_id):
        """Whether what a daemon holds of a counter may be missing.

        Of a run that was forgotten it may use no more than it had when that was; of what was taken
        from it before it was forgotten itself, the next Admittance tells it.
        """
        daemon = self.daemons.get(daemon_id)
        return key in self.over or daemon is None or daemon.sequence < 0

    def state(self):
        """What a backup holds; policies and kill switches are not set back."""
        return (
            dict(self.daemons),
            dict(self.pools),
            dict(self.shares),
            dict(self.outboxes),
            dict(self.top_ups),
            dict(self.old.tombstones),
            list(self.usage),
            self.restored_ns,
        )

    def set_back(self, state):
        maps, (usage, self.restored_ns) = [dict(each) for each in state[:6]], state[6:]
        self.daemons, self.pools, self.shares, self.outboxes, self.top_ups, old = maps
        self.old.tombstones = old
        self.usage = list(usage)
        self.changed = set(self.pools)

    async def put_kill(self, kill):
        self.check()
        return await super().put_kill(kill)

    async def list_kills(self, **options):
        self.check()
        return await super().list_kills(**options)

    async def current_policy(self):
        self.check()
        return await super().current_policy()

    async def publish_policy(self, **fields):
        self.check()
        return await super().publish_policy(**fields)

    async def top_up(self, top_up):
        self.check()
        self.changed.add(top_up.counter_key)
        return await super().top_up(top_up)


def noting(kind, database):
    """Make an exchange of a kind that notes which wants are for calls in flight."""

    class Noting(kind):
        def _outcome(self, daemon, key, want, refused):
            if want.stand.reserved:
                database.wanted_in_flight.add((key, daemon.daemon_id))
            return super()._outcome(daemon, key, want, refused)

    return Noting


def is_granted(before, share, daemon):
    """Tell whether a daemon got more of a counter, and did not only state that it once had."""
    version = before.stand.version if before is not None else 0
    return share.stand.version > version and share.epoch == daemon.epoch


class Replica:
    """One coordinator's process: what `serve`, `Join` and `Upkeep` wire up, driven by hand."""

    def __init__(self, world, name, clock, journal):
        self.name, self.world, self.clock = name, world, clock
        self.database = world.database
        self.links = []
        self.notices = deque()
        self.waiting = deque()
        self.running = None
        """A transaction under way: (coroutine, its batch)."""
        current = drive(self.database.current_policy())
        self.reception = world.parts.reception(
            self.database, clock, published_of(current), world.span
        )
        kind = self.reception.rules_of_exchange
        self.reception.rules_of_exchange = noting(kind, self.database)
        self.kills = KillBook(self.database, journal, self.reception.kill)
        drive(self.kills.refresh(clock.now().wall_ns))
        self.reception.halted = self.kills.learn
        self.operators = FleetControlService(
            self.database,
            self.reception,
            self.kills,
            clock,
            world.publish,
            drills=Drills(self.database, self.reception, clock, name),
        )
        self.reception.drill_heard = world.drilled
        self.database._listeners.append(self)

    def put_nowait(self, notice):
        """Hear from the database, sooner or later."""
        self.notices.append(notice)

    def die(self):
        """End at this moment: transactions under way are committed already, or never will be."""
        self.database._listeners.remove(self)
        if self.running is not None:
            self.running[0].close()
            self.running = None
        for link in self.links:
            link.connection = None
            link.drop(lost_down=self.world.rng.random() < 0.5)

    # ---- streams ---------------------------------------------------------------------------------

    def read(self, link):
        """Take the next message of a stream, as `Join._read` does."""
        raw = link.up.popleft()
        if not link.is_served:
            return
        if link.connection is None:
            link.connection = Connection(link.from_replica, lambda error: self.end(link, error))
        if raw == END:
            self.end(link, None)
            return
        message = pb.ToCoordinator.FromString(raw)
        try:
            check_order(link.connection, message)
        except CostdError as error:
            self.end(link, error)
            return
        if message.HasField("drilled"):
            self.reception.drilled(link.connection, message.drilled)
            return
        link.waits = message.HasField("enrol")
        self.waiting.append((link, Received(link.connection, message)))

    def end(self, link, error):
        """End a stream, as the end of `Join.__call__` does."""
        if not link.is_served:
            return
        if error is not None:
            self.world.ended(link, error)
        link.drop(lost_down=False)
        self.reception.lost(link.connection)

    # ---- transactions ----------------------------------------------------------------------------

    def work(self):
        """Go on with the transaction under way, or begin the next: up to where it waits."""
        if self.running is None:
            count = min(len(self.waiting), self.world.rng.randrange(1, BATCH_COUNT_MAX))
            batch = [self.waiting.popleft() for _ in range(count)]
            if not batch:
                return
            received = [each for _, each in batch]
            self.running = self.reception.receive(received), [link for link, _ in batch]
        coroutine, links = self.running
        self.database.lends_from_known_ns = self.reception.lends_from_ns
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        except CoordinatorUnavailable as error:
            for link in links:
                self.end(link, error)
        else:
            return
        self.running = None
        for link in links:
            link.waits = False

    @property
    def is_busy(self):
        return bool(self.running or self.waiting)

    # ---- upkeep ----------------------------------------------------------------------------------

    def hear_notice(self):
        """Do what `Upkeep._heard` does."""
        notice = self.notices.popleft()
        try:
            if notice.topic is Topic.RECALL:
                self.reception.recall(notice.keys, self.clock.now().wall_ns)
            if notice.topic in {Topic.KILLS, Topic.ALL}:
                drive(self.kills.refresh(self.clock.now().wall_ns))
            if notice.topic in {Topic.POLICY, Topic.ALL}:
                self.refresh_policy()
            if notice.topic in {Topic.RESTORED, Topic.ALL}:
                self.reception.learn(drive(self.database.lends_from_ns()))
        except CoordinatorUnavailable:
            self.notices.append(Notice(topic=Topic.ALL))  # as after the connection is back

    def refresh_policy(self):
        """Do what `Publishing.refresh` does, without its thread."""
        current = drive(self.database.current_policy())
        if current.number > self.reception.published.message.number:
            self.reception.publish(published_of(current))

    def beat(self):
        """Do what `Upkeep._beat` does."""
        drive(self.kills.store_all())

    def problems(self):
        """Nobody is attached whose stream is over."""
        if self.running is not None:
            return []
        served = {id(link.connection) for link in self.links if link.is_served}
        return [
            f"{self.name} still has {daemon_id} attached by a stream that is over"
            for daemon_id, connection in self.reception.attached.items()
            if id(connection) not in served
        ]


def published_of(current):
    """Compile what is published, as `Publishing` does."""
    message = pb.PublishedPolicy(
        number=current.number,
        revision=current.revision,
        yaml=current.yaml,
        actor=current.actor,
        published_ns=current.published_ns,
    )
    return Published(message, compiled(current.yaml))
