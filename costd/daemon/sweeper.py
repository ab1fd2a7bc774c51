"""What the daemon does by itself: expire, forget, release, trim; a slice at a time."""

from dataclasses import dataclass
from itertools import islice

import msgspec

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.desk import Desk
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.horizon import Horizon
from costd.model.kill import KillSwitch
from costd.model.policy import WindowKind
from costd.model.reservation import Reservation, ReservationState
from costd.model.time import NEVER_NS, NS_PER_S

_DAY_S = 86_400
_TRIM_EVERY_NS = 60 * NS_PER_S
_HORIZON_KEY = b"horizon"
_ENDLESS = NEVER_NS.to_bytes(8, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long records stay, in seconds, and how much one slice may do."""

    counters_s: int = 35 * _DAY_S
    """After its window's end; longer than the longest reservation and late settle."""
    usage_s: int = 35 * _DAY_S
    usage_stored_s: int = 3_600
    """Of those that the coordinator has stored."""
    alerts_s: int = 30 * _DAY_S
    audit_s: int = 400 * _DAY_S
    runs_idle_s: int = 30 * _DAY_S
    """How long a run's counter stays after its last change."""
    rates_full_s: int = 60
    """How long a bucket stays once it has refilled: so long it tells whether it was of use lately,
    which decides whether a fleet's rate is given back (`held.IDLE_NS`)."""
    slice_count: int = 500


class Sweeper:
    """Walks what is due; call `sweep` a few times a second."""

    def __init__(
        self, ledger: Ledger, retention: Retention | None = None, desk: Desk | None = None
    ) -> None:
        self.ledger = ledger
        self.desk = desk
        self.retention = retention or Retention()
        now = ledger.clock.now()
        raw = ledger.store.get(Family.META, _HORIZON_KEY)
        saved = None if raw is None else msgspec.msgpack.decode(raw, type=Horizon)
        self.horizon = saved.resumed(now) if saved else Horizon.at(now)
        self.save()  # a later start may find other books, and a clock that is a year ahead
        self._trimmed_ns = now.steady_ns - _TRIM_EVERY_NS
        self._next_rate = b""
        self._next_run = _ENDLESS
        self.lag_ns = 0
        """How long overdue the next reservation is."""

    def sweep(self) -> int:
        """Do one slice of everything; return how many reservations were looked at."""
        now = self.ledger.clock.now()
        before_ns, self.horizon = self.horizon.wall_ns, self.horizon.moved(now)
        if self.horizon.wall_ns < before_ns:  # what is booked from now on has earlier windows
            self.save()
        looked_at = self._walk_due()
        self._release_kills()
        if now.steady_ns - self._trimmed_ns >= _TRIM_EVERY_NS:
            self._trimmed_ns = now.steady_ns
            self._trim()
        self._drop_full_rates()
        self._drop_idle_runs()
        return looked_at

    def save(self) -> None:
        """Keep the horizon over a restart."""
        raw = msgspec.msgpack.encode(self.horizon)
        self.ledger.store.commit([(Family.META, _HORIZON_KEY, raw)])

    def _walk_due(self) -> int:
        """Expire what nobody closed, forget what closed long ago."""
        ledger, store = self.ledger, self.ledger.store
        steady_ns = ledger.clock.now().steady_ns
        end = keys.due_key(steady_ns + 1, b"")
        due = [
            key for key, _ in islice(store.scan(Family.DUE, end=end), self.retention.slice_count)
        ]
        forgotten: list[tuple[Family, bytes, None]] = []
        for key in due:
            identity = key[8:]
            held: Reservation | None = store.get(Family.RESERVATIONS, identity)
            if held is not None and keys.due_key(held.due_ns, identity) == key:
                if held.state is ReservationState.HELD:
                    if self.desk is None or not self.desk.due(held):
                        ledger.expire(held)
                    continue
                forgotten.append((Family.RESERVATIONS, identity, None))
                if held.is_allowance:
                    forgotten.append((Family.ALLOWANCES, identity, None))
            forgotten.append((Family.DUE, key, None))
        if forgotten:
            store.commit(forgotten)
        full = len(due) == self.retention.slice_count
        self.lag_ns = steady_ns - int.from_bytes(due[-1][:8], "big") if full else 0
        return len(due)

    def _release_kills(self) -> None:
        """Release the kill switches whose time is up, with an audit record."""
        ledger, now = self.ledger, self.ledger.clock.now()
        for switch in ledger.kills:
            if not switch.engaged(now.steady_ns):
                released: KillSwitch = msgspec.structs.replace(
                    switch, released_ns=now.wall_ns, released_by="costd"
                )
                ledger.put_kill(
                    released, action="kill_released", actor="costd", detail="its time was up"
                )

    def _trim(self) -> None:
        """Delete ended windows and old records by range, behind the horizon."""
        keep, store = self.retention, self.ledger.store
        counters_end = self.horizon.wall_ns - keep.counters_s * NS_PER_S
        if counters_end > 0:
            end = counters_end.to_bytes(8, "big")
            store.delete_range(Family.COUNTERS, b"", end)
            store.delete_range(Family.LEASES, b"", end)
            lent = self.ledger.lent
            lent.forgotten([key for key in lent.held | lent.changed if key < end])
        self._trim_usage()
        self._trim_log(Family.ALERTS, "raised_ns", keep.alerts_s)
        self._trim_log(Family.AUDIT, "at_ns", keep.audit_s)
        denials_end = self.horizon.wall_ns - keep.audit_s * NS_PER_S
        if denials_end > keys.SEQUENCES_END_NS:
            start, end = keys.sequence_key(keys.SEQUENCES_END_NS), keys.sequence_key(denials_end)
            store.delete_range(Family.AUDIT, start, end)
        self._forget_kills_and_grants()
        if self.desk is not None:
            self.desk.tidy()
        self.save()

    def _trim_usage(self) -> None:
        """Forget usage events: by age, or once the coordinator has them and a little longer.

        Ensures: what the coordinator has not stored stays, however old it is.
        """
        keep, stored = self.retention, self.ledger.usage_stored_sequence
        if stored is None:
            self._trim_log(Family.USAGE, "settled_ns", keep.usage_s)
        else:
            self._trim_log(Family.USAGE, "settled_ns", keep.usage_stored_s, last=stored)

    def _forget_kills_and_grants(self) -> None:
        """Forget kill switches released, and uses of grants expired, as long ago as audit is."""
        store = self.ledger.store
        before_ns = self.horizon.wall_ns - self.retention.audit_s * NS_PER_S
        gone: list[tuple[Family, bytes, None]] = [
            (Family.KILLS, key, None)
            for key, switch in store.scan(Family.KILLS)
            if 0 < switch.released_ns < before_ns
        ]
        gone += [
            (Family.GRANTS, key, None)
            for key, use in store.scan(Family.GRANTS)
            if use.expires_ns < before_ns
        ]
        if gone:
            store.commit(gone)

    def _trim_log(
        self, family: Family, field: str, keep_s: int, *, last: int | None = None
    ) -> None:
        """Delete the oldest records of one log, found by halving.

        They are in order of time but for clock steps, and a record from a clock that was ahead
        must not keep those behind it; nor may reading them all hold up the asks.
        """
        store, before_ns = self.ledger.store, self.horizon.wall_ns - keep_s * NS_PER_S
        end = keys.sequence_key(keys.SEQUENCES_END_NS)
        first = next((int.from_bytes(key, "big") for key, _ in store.scan(family, end=end)), 0)
        kept = first
        last = self.ledger.totals.last(family) if last is None else last
        while kept <= last:
            middle = (kept + last) // 2
            record = store.get(family, keys.sequence_key(middle))
            if record is None or getattr(record, field) < before_ns:
                kept = middle + 1
            else:
                last = middle - 1
        if kept > first:
            store.delete_range(family, b"", keys.sequence_key(kept))

    def _drop_full_rates(self) -> None:
        """Forget buckets that refilled a while ago; walks round and round, a slice at a time."""
        store, before_ns = self.ledger.store, self.ledger.clock.now().steady_ns
        before_ns -= self.retention.rates_full_s * NS_PER_S
        found = list(islice(store.scan(Family.RATES, self._next_rate), self.retention.slice_count))
        self._next_rate = found[-1][0] + b"\0" if found else b""
        full = [(Family.RATES, key, None) for key, full_ns in found if full_ns <= before_ns]
        if full:
            store.commit(full)

    def _drop_idle_runs(self) -> None:
        """Forget counters of runs that have been idle for long; nothing else says a run is over."""
        store, before_ns = self.ledger.store, self.horizon.wall_ns
        before_ns -= self.retention.runs_idle_s * NS_PER_S
        found = list(
            islice(store.scan(Family.COUNTERS, self._next_run), self.retention.slice_count)
        )
        self._next_run = found[-1][0] + b"\0" if found else _ENDLESS
        idle = []
        for key, counter in found:
            is_idle = not counter.reserved and counter.changed_ns < before_ns
            is_owed = key in self.ledger.lent.held  # the coordinator must hear of it first
            if is_idle and not is_owed and self._counts_runs(key[8:16]):
                idle.append((Family.COUNTERS, key, None))
        if idle:
            store.commit(idle)

    def _counts_runs(self, tag: bytes) -> bool:
        """Tell whether a budget has run windows, also one that has left the policy."""
        rule = self.ledger.rules.budgets.get(tag)
        if rule is not None:
            return rule.budget.window.kind is WindowKind.RUN
        known = self.ledger.store.get(Family.META, b"budget/" + tag)
        return known is not None and msgspec.json.decode(known)["window"] == WindowKind.RUN
