"""The store as the ledger keeps it: one batch at a time, under one policy at a time."""

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from costd.clock import Clock
from costd.daemon.books.asking import Trust
from costd.daemon.books.costs import Costs
from costd.daemon.books.enacting import compiled, unregistered
from costd.daemon.books.fullest import Fullest
from costd.daemon.books.lent import Lent
from costd.daemon.books.switches import Switches
from costd.daemon.books.tallies import Tallies
from costd.daemon.books.totals import Totals
from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.leases import alone, given_back, relent, revoked, stand
from costd.engine.resolve import Ledgered
from costd.engine.rules import Rules
from costd.engine.shares import grown
from costd.engine.window import window_bounds
from costd.model.counter import EMPTY_COUNTER
from costd.model.events import AuditRecord
from costd.model.grant import GrantRefusal
from costd.model.kill import KillSwitch
from costd.model.lease import Lease, Stand
from costd.model.policy import PolicySet
from costd.model.reservation import Reservation
from costd.model.time import NEVER_NS, NS_PER_S
from costd.store.port import Put, Store


class Watcher(Protocol):
    """Who must hear at once of what might make an allowance wrong; implemented by the desk."""

    def killed(self, switch: KillSwitch) -> None:
        """Hear of a kill switch that was engaged or released."""
        ...

    def policy_changed(self) -> None:
        """Hear that another policy is in force."""
        ...

    def pressed(self, counter_keys: Sequence[bytes]) -> None:
        """Hear of counters that reached a step, or refused an ask."""
        ...

    def admitted(self, held: Reservation) -> None:
        """Hear of an ask that took from its counters."""
        ...


class StoredState:
    """The books as the rules read them: straight from the store.

    What the coordinator has said is kept in memory only: a restart begins a new session with it.
    """

    def __init__(self, store: Store) -> None:
        self.leases_until_ns = 0
        """Until when leases may be spent; whoever talks to the coordinator sets it."""
        self.exhausted: Container[bytes] = frozenset()
        """Counters of which it said last that nobody has any more."""
        self.refused_grants: Mapping[bytes, GrantRefusal] = {}
        """Why it lends nothing of an override grant's counters, where it said so."""
        self.counter = partial(store.get, Family.COUNTERS)
        self.rate = partial(store.get, Family.RATES)
        self._store = store

    def grant(self, grant_id: str) -> Any:
        """What has been used of an override grant."""
        return self._store.get(Family.GRANTS, grant_id.encode())

    def is_exhausted(self, key: bytes) -> bool:
        """Whether nobody has any more of a counter, as the coordinator said last."""
        return key in self.exhausted

    def refused_grant(self, key: bytes) -> GrantRefusal | None:
        """Why nothing is lent of a grant, as the coordinator said last."""
        return self.refused_grants.get(key)


class Bookkeeping:
    """What is in force and what is written, whoever decides; `Ledger` decides.

    Shape:   sync, single-threaded; every method commits one batch before it returns.
    """

    def __init__(
        self,
        store: Store,
        policy: PolicySet,
        clock: Clock,
        *,
        trust: Trust | None = None,
        closed_keep_s: int = 86_400,
        in_fleet: bool = False,
    ) -> None:
        self.store = store
        self.clock = clock
        self.trust = trust or Trust()
        self.closed_keep_ns = closed_keep_s * NS_PER_S
        self.totals = Totals.load(store)
        self.tallies = Tallies()
        self.fullest = Fullest()
        self.switches = Switches(store)
        self.watcher: Watcher | None = None
        self.recent_alerts: list[Any] = []
        """Alerts committed since somebody last took them away, for the log."""
        self.state = StoredState(store)
        self.costs = Costs(store)
        self.lent = Lent(store)
        self.usage_stored_sequence: int | None = None
        """Usage events up to this one are stored at the coordinator; None where there is none."""
        self.usage_waiting_max = 0
        """With so many that are not, nothing more is promised; 0 for no bound."""
        self.rules = compiled(policy, clock.now().wall_ns, in_fleet=in_fleet)
        puts = unregistered(store, self.rules)
        if puts:
            store.commit(puts)

    @property
    def usage_waiting_count(self) -> int:
        """Usage events that are not stored at the coordinator yet; 0 where there is none."""
        stored = self.usage_stored_sequence
        return 0 if stored is None else max(0, self.totals.usage_seq - stored)

    @property
    def refuses(self) -> str:
        """Why nothing can be promised now; empty if it can. What was promised is settled always."""
        if not 0 < self.usage_waiting_max <= self.usage_waiting_count:
            return ""
        return (
            f"{self.usage_waiting_count} usage events wait for the coordinator, and this daemon "
            f"keeps {self.usage_waiting_max} at most (`outbox_count_max`); it admits again once "
            "the coordinator has stored some: `costctl status` tells why it has not"
        )

    @property
    def kills(self) -> tuple[KillSwitch, ...]:
        """Kill switches that are not released."""
        return self.switches.kills

    @property
    def tally(self) -> dict[tuple[int, str, int], int]:
        """Decisions since the start, by (verdict, task class, reason)."""
        return self.tallies.decisions

    @property
    def events(self) -> dict[str, int]:
        """Other things that happened since the start, by name."""
        return self.tallies.events

    def _compiled(self, policy: PolicySet) -> Rules:
        wall_ns = self.clock.now().wall_ns
        return compiled(policy, wall_ns, in_fleet=self.rules.in_fleet)

    def ledgered(self) -> Ledgered:
        """Gather what closing a reservation reads, as of now."""
        return Ledgered(
            state=self.state,
            rules=self.rules,
            now=self.clock.now(),
            closed_keep_ns=self.closed_keep_ns,
        )

    def find_reservation(self, reservation_id: bytes) -> Reservation | None:
        """Return a reservation, None if there is none."""
        found: Reservation | None = self.store.get(Family.RESERVATIONS, reservation_id)
        return found

    # ---- the store --------------------------------------------------------------------------

    def commit(self, changes: Changes) -> None:
        """Number the appended records and write everything as one batch.

        Ensures: counters of fleet budgets that it changes are in `fleet_changed`.
        Errors:  StoreUnavailable; then the totals are read again, so that they stay true.
        """
        if not self.rules.in_fleet:
            self._write(changes)
            return
        touched = self.lent.touched(changes.puts, self.rules)
        self._give_back_freed(changes.puts, self.lent.must_give_back(touched))
        changes.puts += self.lent.marks(touched)
        self._write(changes)
        self.lent.committed(touched)

    def _give_back_freed(self, puts: list[Put], unstated: Sequence[bytes]) -> None:
        """Lower leases that an Enrol under way may not state to what is used of them now."""
        for index, (family, key, counter) in enumerate(puts if unstated else ()):
            if family is not Family.COUNTERS or key not in unstated or counter.lease is None:
                continue
            if keys.tag_of(key) not in self.rules.shared_rates:
                posted = books.post(given_back(counter), self.rules.budget_of(key))
                puts[index] = (family, key, posted)

    def _write(self, changes: Changes) -> None:
        puts, totals = changes.puts, self.totals
        if changes.usage:
            totals.number(puts, Family.USAGE, changes.usage)
        if changes.alerts:
            totals.number(puts, Family.ALERTS, changes.alerts)
        if changes.audit:
            totals.number(puts, Family.AUDIT, changes.audit)
        if not puts:
            return
        try:
            puts.append(totals.put())
            self.store.commit(puts)
        except BaseException:
            self.totals = Totals.load(self.store)
            raise
        if changes.usage:
            self.tallies.used(changes.usage, self.rules)
            if self.rules.has_keyed:
                self.fullest.written(puts)
        if changes.alerts:
            self.recent_alerts += changes.alerts
        if changes.audit:  # nobody flips a kill switch without a record of it
            self.switches.follow(puts, self.watcher.killed if self.watcher else None)
        if changes.crossed and self.watcher is not None:
            self.watcher.pressed(changes.crossed)

    # ---- the fleet ----------------------------------------------------------------------------

    @property
    def fleet_changed(self) -> set[bytes]:
        """Counters to report to the coordinator; whoever does so takes them out."""
        return self.lent.changed

    def lease(self, key: bytes) -> Lease | None:
        """Return what this daemon may use of a counter."""
        counter = self.state.counter(key)
        return None if counter is None else counter.lease

    def stand(self, key: bytes) -> Stand:
        """State how this daemon stands on a counter."""
        return stand(self.state.counter(key) or EMPTY_COUNTER)

    def set_leases(
        self, leases: Mapping[bytes, Lease], unused_ns: Mapping[bytes, int] | None = None
    ) -> None:
        """Put other leases on counters, and how the fleet stands on them; all of it or nothing.

        Units:   `unused_ns` is for how long what is granted of rates was nobody's.
        Ensures: no lease is lowered below what is used of it; a bucket whose share grows holds
                 no more than it did and what refilled in the added part.
        Errors:  StoreUnavailable.
        """
        changes, now = Changes(), self.clock.now()
        for key, lease in leases.items():
            counter = self.state.counter(key) or EMPTY_COUNTER
            if counter.lease == lease:
                continue
            rule, start_ns = self.rules.budget_of(key), 0
            if rule is not None:  # of the key's window, which may not have begun
                end_ns = keys.split_counter_key(key)[0]
                inside_ns = now.wall_ns if end_ns >= NEVER_NS else end_ns - 1
                start_ns = window_bounds(rule.budget.window, inside_ns)[0]
            posted = books.post(
                relent(counter, lease), rule, start_ns=start_ns, wall_ns=now.wall_ns
            )
            books.write(changes, rule, key, posted, critical=False, now=now)
            rate = self.rules.shared_rates.get(keys.tag_of(key))
            if rate is not None:
                bucket = keys.bucket_key(key)
                full_ns = grown(
                    rate.rate,
                    self.state.rate(bucket),
                    counter.lease.amount if counter.lease else 0,
                    lease.amount,
                    unused_ns=(unused_ns or {}).get(key, 0),
                    steady_ns=now.steady_ns,
                )
                changes.put(Family.RATES, bucket, full_ns)
        marked = [key for family, key, _ in changes.puts if family is Family.COUNTERS]
        changes.puts += self.lent.marks(marked)
        self._write(changes)
        self.lent.marked(marked)

    def account_no_longer(self, counter_keys: Iterable[bytes]) -> None:
        """Stop stating counters of which all is given back and told, until they are touched again.

        A counter keeps its lease, of which nothing is left, for the version it has. How the fleet
        stood is forgotten: nobody tells of it any more, and asks must not be refused for it.
        Errors:  StoreUnavailable.
        """
        gone = list(counter_keys)
        if not gone:
            return
        puts = self.lent.unmarks(gone)
        for key in gone:
            counter = self.state.counter(key)
            if counter is not None and counter.lease is not None:
                puts.append((Family.COUNTERS, key, alone(counter)))
        self.store.commit(puts)
        self.lent.forgotten(gone)

    def account_anew(self, counter_keys: Iterable[bytes]) -> None:
        """State counters again: the coordinator has forgotten what it was told of them.

        Errors:  StoreUnavailable.
        """
        found = sorted(counter_keys)
        self.store.commit(self.lent.marks(found))
        self.lent.committed(found)

    def fleet_counters(self) -> list[bytes]:
        """List every counter of a fleet's budget that the books have, accounted for or not."""
        found = self.store.scan(Family.COUNTERS)
        counters = [(key, counter, self.rules.budget_of(key)) for key, counter in found]
        return [
            key
            for key, counter, rule in counters
            if counter.lease is not None or (rule is not None and rule.is_shared)
        ]

    def revoke_leases(self, counter_keys: Iterable[bytes]) -> None:
        """Let nothing more be used of leases, also of what comes free; all of it or nothing.

        Errors:  StoreUnavailable.
        """
        changes, now = Changes(), self.clock.now()
        for key in sorted(counter_keys):
            counter = self.state.counter(key)
            if counter is None:
                continue
            rule = self.rules.budget_of(key)
            posted = books.post(revoked(counter), rule)
            books.write(changes, rule, key, posted, critical=False, now=now)
        self.commit(changes)

    # ---- operators --------------------------------------------------------------------------

    def put_kill(self, switch: KillSwitch, *, action: str, actor: str, detail: str) -> None:
        """Store a kill switch as engaged or released, with its audit record."""
        changes = Changes()
        changes.put(Family.KILLS, switch.kill_id.encode(), switch)
        changes.audit.append(
            AuditRecord(
                at_ns=self.clock.now().wall_ns,
                actor=actor,
                action=action,
                subject=switch.kill_id,
                detail=detail,
            )
        )
        self.commit(changes)

    def swap_policy(self, policy: PolicySet, *, actor: str = "costd") -> None:
        """Put another policy in force; reservations that are out close on their own counters.

        Errors:  StoreUnavailable; then the old policy stays in force.
        """
        rules, changes = self._compiled(policy), Changes()
        changes.puts += unregistered(self.store, rules)
        changes.audit.append(
            AuditRecord(
                at_ns=self.clock.now().wall_ns,
                actor=actor,
                action="policy_loaded",
                subject=policy.revision,
            )
        )
        self.commit(changes)
        self.rules = rules
        if self.watcher is not None:
            self.watcher.policy_changed()

    def audit(self, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Append one audit record."""
        changes = Changes()
        at_ns = self.clock.now().wall_ns
        changes.audit.append(
            AuditRecord(at_ns=at_ns, actor=actor, action=action, subject=subject, detail=detail)
        )
        self.commit(changes)
