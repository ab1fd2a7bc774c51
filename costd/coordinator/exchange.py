"""The coordinator's side of the fleet protocol: one message over rows that are locked.

No I/O: rows come in, changed rows and answers come out. docs/reference/fleet.md is the protocol.
"""

from collections.abc import Container, Iterable, Sequence

import msgspec

from costd.coordinator import enrolling, usage
from costd.coordinator.lendable import (
    EXHAUSTED_RETRY_NS,
    Span,
    is_in_force,
    note_lent,
    recalled,
    refused_grants,
    retry_ns,
)
from costd.coordinator.rows import Daemon, Rows, given_up
from costd.coordinator.stands import Stands
from costd.engine import keys, lend, shares
from costd.engine.rules import BudgetRule, Rules
from costd.errors import InvalidAsk, StaleEpoch
from costd.model.lease import Stand, Want
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb


class Exchange(Stands):
    """Acts on messages of daemons; one instance lives for one transaction.

    Shape:   pure but for `rows`, which it changes.
    Errors:  StaleEpoch for a message of a stream that is over, InvalidAsk for one that makes no
             sense; the transaction is dropped then.
    """

    def __init__(
        self,
        rows: Rows,
        rules: Rules,
        *,
        now_ns: int,
        span: Span,
        lends_from_ns: int = 0,
        reclaims_from_ns: int = 0,
    ) -> None:
        super().__init__(rows, rules, now_ns=now_ns)
        self._span = span
        self._lends_from_ns = lends_from_ns
        """Until then it learns what daemons hold, and grants nothing."""
        self._takes_from_ns = max(lends_from_ns, reclaims_from_ns)

    # ---- messages ----------------------------------------------------------------------------

    def enrol(self, message: pb.Enrol, peer: str = "") -> pb.Admittance:
        """Welcome a daemon, new or come back; what it says it holds is what it holds.

        Errors:  as `check_enrol`; `peer` is the name that its certificate says.
        """
        rows, daemon_id = self._rows, message.daemon_id
        known = rows.daemons.get(daemon_id) or Daemon(daemon_id=daemon_id)
        enrolling.check_enrol(known, message, peer)
        daemon = msgspec.structs.replace(
            known,
            epoch=max(known.epoch, message.epoch) + 1,
            sequence=0,
            name=peer or message.name,
            version=message.version,
            boot_id=message.boot_id,
            enrolled_ns=self._now_ns,
        )
        daemon = self._heard(daemon, message.now_ns)
        stated = {stand.counter_key: wire.stand_from_pb(stand) for stand in message.stands}
        held = sorted(key for key, owner in rows.shares if owner == daemon_id)
        was_given_up = enrolling.was_given_up(known, message)
        is_behind = enrolling.has_forgotten(known, message) or enrolling.has_forgotten_grants(
            rows, daemon_id, stated, self._now_ns, was_given_up=was_given_up
        )
        if is_behind:
            # Until it speaks of all, so that an Admittance that is lost on its way does no harm.
            spoken_epoch = min(known.spoken_epoch, message.heard_epoch - 1)
            daemon = msgspec.structs.replace(daemon, spoken_epoch=spoken_epoch)
            rows.lends_from_ns = self._lends_from_ns = self._now_ns + self._span.outlived_ns
        reclaimed = []
        for key in sorted({*stated, *held}):
            before = rows.share(key, daemon_id)
            is_taken = enrolling.is_taken(before, stated.get(key), was_given_up=was_given_up)
            if is_taken:
                reclaimed.append(key)
            if message.books_are_old and self._rate(key) is None:
                self._lose(daemon, key, stated.get(key))
            elif is_taken:
                # The daemon does not know yet: it goes on to be told until it has spoken of it.
                stand = lend.reclaimed(stated.get(key, self._held(daemon, key)))
                self._restate(daemon, key, stand, is_reclaimed=True)
            elif key in stated:
                self._restate(daemon, key, stated[key], may_rise=is_behind)
            elif before is not None and not is_behind:
                # What was granted and is not stated never arrived; what was used was receipted.
                self._restate(daemon, key, lend.reclaimed(before.stand))
        rows.put_daemon(daemon)
        usage_sequence = usage.begun(rows, daemon, message.usage_first_sequence, self._now_ns)
        return pb.Admittance(
            epoch=daemon.epoch,
            now_ns=self._now_ns,
            tenure=wire.duration(self._span.tenure_ns),
            usage_sequence=usage_sequence,
            reclaimed_keys=reclaimed,
            levels=self._levels(daemon_id, sorted({*stated, *held}) if is_behind else stated),
            has_forgotten=is_behind,
        )

    def report(self, daemon_id: str, message: pb.LeaseReport) -> pb.ReportReceipt:
        """Take what a daemon used and gives back, and renew its tenure."""
        daemon = self._current(daemon_id, message.epoch)
        named = [stand.counter_key for stand in message.stands]
        if self._is_new(daemon, message.sequence):
            for stand in message.stands:
                heard = wire.stand_from_pb(stand)
                self._hear(daemon, stand.counter_key, heard, unused_ns=stand.unused_ns)
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
        """Grant all that a request wants or nothing of it; ahead of need, each by itself."""
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
        grant, refused = refused_grants(self._rules, message, self._now_ns)
        outcomes = [self._outcome(daemon, key, want, refused) for key, want in wants]
        failed = any(outcome != pb.LEASE_OUTCOME_GRANTED for outcome, _ in outcomes)
        # All checks passed; below, either every want is granted or none, but ahead of need.
        reply = pb.LeaseReply(
            request_id=message.request_id, epoch=daemon.epoch, now_ns=self._now_ns
        )
        for (key, want), (outcome, stand) in zip(wants, outcomes, strict=True):
            unused_ns = 0
            if outcome == pb.LEASE_OUTCOME_GRANTED and (message.ahead or not failed):
                if stand.version > self._held(daemon, key).version:
                    unused_ns = shares.unclaimed_ns(self._rows.pool(key), self._now_ns)
                self._restate(daemon, key, stand, granted_epoch=daemon.epoch)
            elif outcome == pb.LEASE_OUTCOME_GRANTED:
                outcome, stand = pb.LEASE_OUTCOME_SET_FAILED, want.stand  # noqa: PLW2901
            told = self._tell(reply, daemon, key, outcome, stand, unused_ns=unused_ns)
            told.grant_refusal = int(refused.get(key, 0))  # type: ignore[assignment]
        if grant is not None and not failed:
            note_lent(self._rows, grant, daemon, self._now_ns)
        if failed:
            reply.retry_after.CopyFrom(wire.duration(retry_ns(outcome for outcome, _ in outcomes)))
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
        *,
        unused_ns: int = 0,
    ) -> pb.Grant:
        grant = reply.grants.add(
            counter_key=key,
            outcome=outcome,
            amount=stand.amount,
            reserve_amount=stand.reserve_amount,
            version=stand.version,
            unused_ns=unused_ns if self._rate(key) else 0,
        )
        level = self._level(daemon.daemon_id, key)
        if level is not None:
            grant.level.CopyFrom(level)
        return grant

    def usage(self, daemon_id: str, message: pb.UsageBatch) -> pb.UsageReceipt:
        """Store usage events, each exactly once; errors as `usage.store`."""
        stored = usage.store(self._rows, daemon_id, message.epoch, message.events)
        return pb.UsageReceipt(epoch=message.epoch, sequence=stored)

    # ---- operators ---------------------------------------------------------------------------

    def reclaim(self, daemon_id: str, keys_of: Iterable[bytes]) -> int:
        """Take back what a daemon that will never come back may still use; returns how much.

        Ensures: the daemon's stream, should it have one, is over: its epoch moves on.
        Errors:  StillSpending, as `check_reclaim`.
        """
        daemon = self._rows.daemons[daemon_id]
        enrolling.check_reclaim(daemon, self._takes_from_ns, now_ns=self._now_ns, span=self._span)
        amount = 0
        for key in sorted(keys_of):
            share = self._rows.share(key, daemon_id)
            if share is None or not lend.presumed(share.stand):
                continue
            amount += lend.presumed(share.stand)
            self._restate(daemon, key, lend.reclaimed(share.stand), is_reclaimed=True)
        self._rows.put_daemon(given_up(daemon))
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

    def _outcome(
        self, daemon: Daemon, key: bytes, want: Want, refused: Container[bytes]
    ) -> tuple["pb.LeaseOutcome", Stand]:
        """What can be done for one want, and how the daemon stands if it is."""
        if key in refused:
            return pb.LEASE_OUTCOME_BAD_GRANT, want.stand
        rule = self._rules.budgets.get(keys.tag_of(key))
        terms = self._terms(key)
        if terms is None:
            return pb.LEASE_OUTCOME_NO_BUDGET, want.stand
        if rule is not None and not self._in_force(rule, key, want):
            return pb.LEASE_OUTCOME_WRONG_WINDOW, want.stand
        is_off = abs(daemon.clock_offset_ns) > self._span.skew_ns_max
        if is_off or self._now_ns < self._lends_from_ns:
            return pb.LEASE_OUTCOME_NOT_NOW, want.stand
        stand = lend.lend(self._rows.pool(key), terms, want)
        if stand is not None:
            return pb.LEASE_OUTCOME_GRANTED, stand
        return recalled(self._rows, key, want, is_rate=self._rate(key) is not None), want.stand

    def _in_force(self, rule: BudgetRule, key: bytes, want: Want) -> bool:
        return is_in_force(rule, key, want, self._now_ns, self._span)
