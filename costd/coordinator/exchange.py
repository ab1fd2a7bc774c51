"""The coordinator's side of the fleet protocol: one message over rows that are locked.

No I/O: rows come in, changed rows and answers come out. docs/reference/fleet.md is the protocol.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from costd.coordinator.rows import Daemon, Rows, Share
from costd.engine import books, keys, lend
from costd.engine.changes import Changes
from costd.engine.lend import Terms
from costd.engine.rules import BudgetRule, Rules
from costd.errors import InvalidAsk, StaleEpoch
from costd.model.counter import Counter
from costd.model.events import Alert
from costd.model.lease import NO_STAND, Pool, Stand, Want
from costd.model.policy import WindowKind
from costd.model.time import NEVER_NS, NS_PER_S, Now
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

RECALL_RETRY_NS: Final = 20_000_000
"""How soon to ask again for what others were asked to give back: a round trip to them and back."""
EXHAUSTED_RETRY_NS: Final = 500_000_000
"""How soon to ask again for what nobody has."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """How long promises last; the same for every daemon of a fleet."""

    tenure_ns: int = 10 * NS_PER_S
    skew_ns_max: int = 5 * NS_PER_S
    """A daemon whose clock is further off gets no leases."""
    early_ns: int = 5 * NS_PER_S
    """How long before a window begins its leases are granted."""


class Exchange:
    """Acts on messages of daemons; one instance lives for one transaction.

    Shape:   pure but for `rows`, which it changes.
    Errors:  StaleEpoch for a message of a stream that is over, InvalidAsk for one that makes no
             sense; the transaction is dropped then.
    """

    def __init__(
        self, rows: Rows, rules: Rules, *, now_ns: int, span: Span, lends_from_ns: int = 0
    ) -> None:
        self._rows = rows
        self._rules = rules
        self._now_ns = now_ns
        self._span = span
        self._lends_from_ns = lends_from_ns
        """Until then it learns what daemons hold, and grants nothing."""

    # ---- messages ----------------------------------------------------------------------------

    def enrol(self, message: pb.Enrol) -> pb.Admittance:
        """Welcome a daemon, new or come back; what it says it holds is what it holds."""
        rows, daemon_id = self._rows, message.daemon_id
        known = rows.daemons.get(daemon_id) or Daemon(daemon_id=daemon_id)
        if message.epoch < known.spoken_epoch and not message.books_are_old:
            raise StaleEpoch(
                f"this Enrol of daemon {daemon_id!r} is late: it is from before epoch "
                f"{known.spoken_epoch}, in which the daemon has spoken since"
            )
        daemon = msgspec.structs.replace(
            known,
            epoch=max(known.epoch, message.epoch) + 1,
            sequence=0,
            name=message.name,
            version=message.version,
            boot_id=message.boot_id,
            enrolled_ns=self._now_ns,
        )
        daemon = self._heard(daemon, message.now_ns)
        stated = {stand.counter_key: wire.stand_from_pb(stand) for stand in message.stands}
        held = sorted(key for key, owner in rows.shares if owner == daemon_id)
        reclaimed = []
        for key in sorted({*stated, *held}):
            before = rows.share(key, daemon_id)
            if before is not None and before.is_reclaimed:
                reclaimed.append(key)
            if message.books_are_old:
                self._lose(daemon, key, stated.get(key))
            elif before is not None and before.is_reclaimed:
                # The daemon does not know yet: it goes on to be told until it has spoken of it.
                stand = lend.reclaimed(stated.get(key, before.stand))
                self._restate(daemon, key, stand, is_reclaimed=True)
            elif key in stated:
                # A database that was restored has forgotten what it granted.
                self._restate(daemon, key, stated[key], may_rise=message.epoch > known.epoch)
            elif before is not None:
                # What was granted and is not stated never arrived; what was used was receipted.
                self._restate(daemon, key, lend.reclaimed(before.stand))
        daemon = self._without_gap(daemon, message.usage_first_sequence)
        rows.put_daemon(daemon)
        return pb.Admittance(
            epoch=daemon.epoch,
            now_ns=self._now_ns,
            tenure=wire.duration(self._span.tenure_ns),
            usage_sequence=daemon.usage_sequence,
            reclaimed_keys=reclaimed,
            levels=self._levels(daemon_id, stated),
        )

    def report(self, daemon_id: str, message: pb.LeaseReport) -> pb.ReportReceipt:
        """Take what a daemon used and gives back, and renew its tenure."""
        daemon = self._current(daemon_id, message.epoch)
        named = [stand.counter_key for stand in message.stands]
        if self._is_new(daemon, message.sequence):
            for stand in message.stands:
                self._hear(daemon, stand.counter_key, wire.stand_from_pb(stand))
        daemon = msgspec.structs.replace(
            self._heard(daemon, message.now_ns),
            spoken_epoch=daemon.epoch,
            policy_number=message.policy_number,
            policy_problem=message.policy_problem,
            outbox_count=message.outbox_count,
            overspend_bound_nusd=message.overspend_bound_nusd,
            clients_count=message.clients_count,
            kills_version=message.kills_version,
            sequence=max(daemon.sequence, message.sequence),
        )
        self._rows.put_daemon(daemon)
        return pb.ReportReceipt(
            epoch=daemon.epoch,
            sequence=message.sequence,
            tenure=wire.duration(self._span.tenure_ns),
            now_ns=self._now_ns,
            levels=self._levels(daemon_id, named),
        )

    def request(self, daemon_id: str, message: pb.LeaseRequest) -> pb.LeaseReply:
        """Grant all that a request wants, or nothing of it."""
        daemon = self._current(daemon_id, message.epoch)
        wants = [(want.stand.counter_key, wire.want_from_pb(want)) for want in message.wants]
        if len({key for key, _ in wants}) < len(wants):
            raise InvalidAsk(f"request {message.request_id!r} names a counter twice")
        if not self._is_new(daemon, message.sequence):
            return self._told_again(daemon, message.request_id, wants)
        for key, want in wants:
            # No grant can be on its way: a counter is asked for once at a time, and a daemon that
            # asks has read the answer before.
            self._restate(daemon, key, want.stand)
        self._rows.put_daemon(
            msgspec.structs.replace(daemon, sequence=message.sequence, spoken_epoch=daemon.epoch)
        )
        outcomes = [self._outcome(daemon, key, want) for key, want in wants]
        failed = any(outcome != pb.LEASE_OUTCOME_GRANTED for outcome, _ in outcomes)
        # All checks passed; below, either every want is granted or none.
        reply = pb.LeaseReply(
            request_id=message.request_id, epoch=daemon.epoch, now_ns=self._now_ns
        )
        for (key, want), (outcome, stand) in zip(wants, outcomes, strict=True):
            if not failed:
                self._restate(daemon, key, stand, granted_epoch=daemon.epoch)
            elif outcome == pb.LEASE_OUTCOME_GRANTED:
                outcome, stand = pb.LEASE_OUTCOME_SET_FAILED, want.stand  # noqa: PLW2901
            self._tell(reply, daemon, key, outcome, stand)
        if failed:
            reply.retry_after.CopyFrom(wire.duration(self._retry_ns(outcomes)))
        return reply

    def _told_again(
        self, daemon: Daemon, request_id: str, wants: Sequence[tuple[bytes, Want]]
    ) -> pb.LeaseReply:
        """Answer a request that is seen again by what was granted; nothing changes."""
        reply = pb.LeaseReply(request_id=request_id, epoch=daemon.epoch, now_ns=self._now_ns)
        for key, want in wants:
            held = self._held(daemon, key)
            is_granted = held.version > want.stand.version and held.amount >= want.amount_min
            told = pb.LEASE_OUTCOME_GRANTED if is_granted else pb.LEASE_OUTCOME_NOT_NOW
            self._tell(reply, daemon, key, told, held)
        reply.retry_after.CopyFrom(wire.duration(EXHAUSTED_RETRY_NS))
        return reply

    def _tell(
        self,
        reply: pb.LeaseReply,
        daemon: Daemon,
        key: bytes,
        outcome: "pb.LeaseOutcome",
        stand: Stand,
    ) -> None:
        grant = reply.grants.add(
            counter_key=key,
            outcome=outcome,
            amount=stand.amount,
            reserve_amount=stand.reserve_amount,
            version=stand.version,
        )
        level = self._level(daemon.daemon_id, key)
        if level is not None:
            grant.level.CopyFrom(level)

    def usage(self, daemon_id: str, message: pb.UsageBatch) -> pb.UsageReceipt:
        """Store usage events, each exactly once.

        Errors:  InvalidAsk where events between the newest stored and the first are missing.
        """
        daemon = self._current(daemon_id, message.epoch)
        sequence = daemon.usage_sequence
        for event in message.events:
            if event.sequence <= sequence:
                continue
            if event.sequence != sequence + 1:
                raise InvalidAsk(
                    f"usage event {event.sequence} came after {sequence}; send those between"
                )
            self._rows.usage.append((daemon_id, event))
            sequence = event.sequence
        if sequence != daemon.usage_sequence:
            self._rows.put_daemon(msgspec.structs.replace(daemon, usage_sequence=sequence))
        return pb.UsageReceipt(epoch=daemon.epoch, sequence=sequence)

    # ---- operators ---------------------------------------------------------------------------

    def reclaim(self, daemon_id: str, keys_of: Iterable[bytes]) -> int:
        """Take back what a daemon that will never come back may still use; returns how much.

        Ensures: the daemon's stream, should it have one, is over: its epoch moves on.
        Errors:  InvalidAsk while its tenure lasts, with the skew a clock may have: it may spend.
        """
        daemon = self._rows.daemons[daemon_id]
        ends_ns = daemon.tenure_ends_ns + self._span.skew_ns_max
        if self._now_ns < ends_ns:
            raise InvalidAsk(
                f"daemon {daemon.name!r} may still spend what it holds; stop it, or wait "
                f"{(ends_ns - self._now_ns) / NS_PER_S:.1f} s more"
            )
        amount = 0
        for key in sorted(keys_of):
            share = self._rows.share(key, daemon_id)
            if share is None or not lend.presumed(share.stand):
                continue
            amount += lend.presumed(share.stand)
            self._restate(daemon, key, lend.reclaimed(share.stand), is_reclaimed=True)
        self._rows.put_daemon(msgspec.structs.replace(daemon, epoch=daemon.epoch + 1))
        return amount

    # ---- inside ------------------------------------------------------------------------------

    def _current(self, daemon_id: str, epoch: int) -> Daemon:
        daemon = self._rows.daemons.get(daemon_id)
        if daemon is None or daemon.epoch != epoch:
            raise StaleEpoch(
                f"this stream of daemon {daemon_id!r} is over: its epoch {epoch} is not "
                f"{daemon.epoch if daemon else 'known here'}; enrol anew"
            )
        return daemon

    def _is_new(self, daemon: Daemon, sequence: int) -> bool:
        """Tell whether a request or report is not a repeated one.

        Errors:  InvalidAsk where one before it is missing; the daemon enrols anew, and then tells
                 the whole truth.
        """
        if sequence > daemon.sequence + 1:
            raise InvalidAsk(
                f"message {sequence} came after {daemon.sequence}; one between is lost: enrol anew"
            )
        return sequence > daemon.sequence

    def _heard(self, daemon: Daemon, its_now_ns: int) -> Daemon:
        return msgspec.structs.replace(
            daemon,
            seen_ns=self._now_ns,
            tenure_ends_ns=self._now_ns + self._span.tenure_ns,
            clock_offset_ns=its_now_ns - self._now_ns,
        )

    def _without_gap(self, daemon: Daemon, first_sequence: int) -> Daemon:
        """Go on behind usage events that this database once stored, and lost."""
        missing = first_sequence - 1 - daemon.usage_sequence
        if not first_sequence or missing <= 0:
            return daemon
        self._rows.alerts.append(
            Alert(
                raised_ns=self._now_ns,
                kind="usage_lost",
                rule=daemon.daemon_id,
                key=daemon.name,
                message=(
                    f"{missing} usage events of daemon {daemon.name} were stored once and are not "
                    "in this database; was it restored from a backup?"
                ),
            )
        )
        return msgspec.structs.replace(daemon, usage_sequence=first_sequence - 1)

    def _hear(self, daemon: Daemon, key: bytes, stand: Stand) -> None:
        """Take a report's stand, which may have crossed a grant of this epoch on the way."""
        share = self._rows.share(key, daemon.daemon_id)
        if share is not None and share.epoch == daemon.epoch:
            stand = lend.heard(share.stand, stand)
        self._restate(daemon, key, stand)

    def _restate(
        self,
        daemon: Daemon,
        key: bytes,
        stand: Stand,
        *,
        is_reclaimed: bool = False,
        granted_epoch: int = 0,
        may_rise: bool = False,
    ) -> None:
        """Replace a daemon's part of a counter by what it says, or is granted.

        Ensures: what it may use rises by a grant only, whatever a late Enrol says.
        """
        rows = self._rows
        before = rows.share(key, daemon.daemon_id)
        share = before or Share()
        if not (granted_epoch or may_rise):
            stand = lend.at_most(stand, share.stand)
        late = share.late
        if share.is_reclaimed:
            # It came back after all: what it used of what was taken from it comes late.
            late += lend.beyond(share.stand, stand)
        after = msgspec.structs.replace(
            share,
            stand=stand,
            late=late,
            is_reclaimed=is_reclaimed,
            epoch=granted_epoch or share.epoch,
        )
        if before == after:
            return
        rule = self._rules.budgets.get(keys.tag_of(key))
        terms = self._terms(key)
        changed = lend.restate(
            rows.pool(key),
            before.stand if before else None,
            stand,
            limit=terms.limit if terms else None,
            wall_ns=self._now_ns,
        )
        if late != share.late:
            changed = lend.excuse_late(changed, late - share.late)
        if terms is not None and rule is not None:
            changed = self._alerted(rule, key, changed, terms)
        rows.put(key, daemon.daemon_id, changed, after)

    def _lose(self, daemon: Daemon, key: bytes, stand: Stand | None) -> None:
        """Keep what a daemon may have spent presumed spent: it cannot tell any more."""
        before = self._rows.share(key, daemon.daemon_id)
        if before is None:
            if stand is not None:
                self._restate(daemon, key, stand)
            return
        after = lend.reclaimed(stand or NO_STAND)
        # Told again, its earlier losses are among what it may have spent then.
        lost = before.stand.taken + before.lost - after.taken
        reserve_lost = before.stand.reserve_taken + before.reserve_lost - after.reserve_taken
        # Old books may hold what was told to be free already, and is somebody else's by now.
        # And what excused what is lost by now goes on to.
        late = max(0, -lost) + max(0, lend.excused(before.stand) - lend.excused(after))
        lost, reserve_lost = max(0, lost), max(0, reserve_lost)
        pool = lend.lose(
            self._rows.pool(key), lost - before.lost, reserve_lost - before.reserve_lost
        )
        share = msgspec.structs.replace(
            before, lost=lost, reserve_lost=reserve_lost, late=before.late + late
        )
        # First what is lost, then what is left, so that a limit that was cut sees the sum.
        self._rows.put(key, daemon.daemon_id, lend.excuse_late(pool, late), share)
        self._restate(daemon, key, after)

    def _outcome(self, daemon: Daemon, key: bytes, want: Want) -> tuple["pb.LeaseOutcome", Stand]:
        """What can be done for one want, and how the daemon stands if it is."""
        rule = self._rules.budgets.get(keys.tag_of(key))
        terms = self._terms(key)
        if rule is None or terms is None:
            return pb.LEASE_OUTCOME_NO_BUDGET, want.stand
        if not self._in_force(rule, key):
            return pb.LEASE_OUTCOME_WRONG_WINDOW, want.stand
        if (
            self._now_ns < self._lends_from_ns
            or abs(daemon.clock_offset_ns) > self._span.skew_ns_max
        ):
            return pb.LEASE_OUTCOME_NOT_NOW, want.stand
        stand = lend.lend(self._rows.pool(key), terms, want)
        if stand is not None:
            return pb.LEASE_OUTCOME_GRANTED, stand
        pool = self._rows.pool(key)
        if pool.taken - pool.used > lend.presumed(want.stand):
            self._rows.recalled.add(key)
            return pb.LEASE_OUTCOME_RECALLED, want.stand
        return pb.LEASE_OUTCOME_EXHAUSTED, want.stand

    def _held(self, daemon: Daemon, key: bytes) -> Stand:
        share = self._rows.share(key, daemon.daemon_id)
        return share.stand if share else NO_STAND

    def _in_force(self, rule: BudgetRule, key: bytes) -> bool:
        """Tell whether a counter's window is in force, or begins so soon that it may be leased."""
        end_ns = keys.split_counter_key(key)[0]
        if end_ns >= NEVER_NS:
            return rule.window(self._now_ns)[1] == end_ns
        moments = (-self._span.skew_ns_max, 0, self._span.early_ns)
        return any(rule.window(self._now_ns + moment)[1] == end_ns for moment in moments)

    def _terms(self, key: bytes) -> Terms | None:
        """What the policy allows on a counter; None where it has no such fleet budget."""
        rule = self._rules.budgets.get(keys.tag_of(key))
        if rule is None or not rule.is_shared or rule.limit is None:
            return None
        return Terms(
            limit=rule.limit + self._rows.pool(key).topped_up,
            reserve=rule.budget.reserve,
            whole=rule.budget.window.kind is WindowKind.RUN,
        )

    def _alerted(self, rule: BudgetRule, key: bytes, pool: Pool, terms: Terms) -> Pool:
        """Alert once for every step the fleet has reached; engage a halt."""
        if not rule.has_steps:
            return pool
        start_ns = pool.start_ns or rule.window(self._now_ns)[0]
        counter = Counter(
            settled=pool.settled,
            reserved=pool.reserved,
            reserve_settled=pool.reserve_settled,
            reserve_reserved=pool.reserve_reserved,
            limit=terms.limit,
            alerted_bp=pool.alerted_bp,
            burn_alerted_bp=pool.burn_alerted_bp,
            start_ns=start_ns,
        )
        changes = Changes()
        now = Now(self._now_ns, self._now_ns)
        limit, used = terms.limit - terms.reserve, pool.used - pool.reserve_used
        counter = books.raise_crossings(
            changes, rule, key, counter, limit=limit, used=used, now=now
        )
        self._rows.alerts += changes.alerts
        self._rows.audit += changes.audit
        self._rows.kills += [value for _, _, value in changes.puts]
        return msgspec.structs.replace(
            pool,
            alerted_bp=counter.alerted_bp,
            burn_alerted_bp=counter.burn_alerted_bp,
            start_ns=start_ns,
        )

    def _level(self, daemon_id: str, key: bytes) -> pb.Level | None:
        terms = self._terms(key)
        if terms is None:
            return None
        share = self._rows.share(key, daemon_id)
        stand = share.stand if share else NO_STAND
        return wire.level_to_pb(key, lend.level(self._rows.pool(key), terms, stand))

    def _levels(self, daemon_id: str, named: Iterable[bytes]) -> list[pb.Level]:
        found = (self._level(daemon_id, key) for key in named)
        return [level for level in found if level is not None]

    def _retry_ns(self, outcomes: Sequence[tuple["pb.LeaseOutcome", Stand]]) -> int:
        final = {pb.LEASE_OUTCOME_GRANTED, pb.LEASE_OUTCOME_RECALLED, pb.LEASE_OUTCOME_SET_FAILED}
        if all(outcome in final for outcome, _ in outcomes):
            return RECALL_RETRY_NS
        return EXHAUSTED_RETRY_NS
