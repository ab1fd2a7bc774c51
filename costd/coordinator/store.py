"""Everything a coordinator keeps and asks of its store, beside `FleetStore.transact`."""

from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from costd.coordinator.drill_words import DrillWord
from costd.coordinator.rows import Daemon, FleetStore, Share
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillSwitch
from costd.model.lease import Pool
from costd.wire.pb import control_pb2

LIMIT_COUNT: int = 1_000
"""Rows of a page, where nobody says."""

LABELS = (
    "org",
    "project",
    "team",
    "user",
    "agent",
    "agent_type",
    "run",
    "stage",
    "role",
    "feature",
)
"""Labels that hourly sums keep apart; an event without one counts under ''."""
DIMENSIONS = (
    "daemon_id",
    *LABELS,
    "task_class",
    "provider",
    "model",
    "tier",
    "cost_kind",
    "verdict",
    "outcome",
    "closed_as",
)
"""What usage can be summed by, in whole hours."""
MEASURES = (
    "calls_count",
    "cost_nusd",
    "prompt_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "retry_count",
)
"""What is summed."""


class PolicyText(msgspec.Struct, frozen=True, kw_only=True):
    """One published policy."""

    number: int
    revision: str
    yaml: str
    """Empty in a history."""
    actor: str
    published_ns: int
    note: str = ""


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator added to the limit of one counter."""

    top_up_id: str
    counter_key: bytes
    amount: int
    actor: str
    reason: str
    at_ns: int


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the usage of some hours."""

    by: Mapping[str, str | int]
    calls_count: int = 0
    cost_nusd: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    retry_count: int = 0


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One running coordinator; times are the database's, in seconds since 1970."""

    instance_id: str
    release: str
    schema_number: int
    address: str = ""
    started_s: float = 0
    seen_s: float = 0


class Topic(StrEnum):
    """What replicas tell each other of."""

    RECALL = "recall"
    """Others must give back what they do not use of these counters."""
    KILLS = "kills"
    POLICY = "policy"
    RESTORED = "restored"
    """The database has forgotten what was granted; its version is the time in ns, by the
    coordinators' wall clock, from which it is granted again."""
    DRILL = "drill"
    """A drill is asked for or answered; nothing of it is in the database."""
    ALL = "all"
    """Something may have been missed: read everything again."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Word from another replica, or from this one."""

    topic: Topic
    version: int = 0
    """Of kills or policy; of a restored database a time in ns."""
    keys: tuple[bytes, ...] = ()
    """Of a recall."""
    word: DrillWord | None = None
    """Of a drill."""


class Forgets(Protocol):
    """Deletes what is old, at most `slice_count` rows at a time.

    Exists so that a slice is short, whatever there is. Implemented by `OldRows`; in memory, for
    simulations, by `MemoryOldRows`.
    Shape:   each returns how many went, where nothing else is said.
    Errors:  CoordinatorUnavailable, also for a statement that took too long.
    """

    slice_count: int

    def windows(self, *, ended_before_ns: int) -> Awaitable[int]:
        """Forget counters whose window ended before then, with all shares and top-ups."""
        ...

    def daemons(
        self, *, heard_before_ns: int, at_ns: int, after_id: str = ""
    ) -> Awaitable[tuple[str, list[str]]]:
        """Forget daemons that were not heard since then, and hold nothing.

        Shape:   looks at a slice of all behind `after_id`; returns behind which it goes on, empty
                 at the end, and who was forgotten. A daemon holds something that may use more than
                 it said that it does, or has lost some.
        Ensures: what it used stays counted, and its shares with it; those of which nothing is in
                 any sum go. If it comes back, `transact` knows it again: its epochs, its name and
                 how far its usage is stored.
        """
        ...

    def counters(
        self, counter_keys: Collection[bytes], *, changed_before_ns: int
    ) -> Awaitable[int]:
        """Forget such of these counters as nobody may use more of, and nobody has for long.

        Shape:   with all shares and top-ups; one that has changed since then stays.
        """
        ...

    def recount(self, counter_keys: Collection[bytes], *, heard_after_ns: int) -> Awaitable[int]:
        """Count anew the daemons that share counters: those that were heard since then."""
        ...


class CoordinatorStore(FleetStore, Protocol):
    """A coordinator's memory; `PostgresStore` in production, `MemoryFleetStore` in simulations.

    tests/contract/test_fleet_store.py holds both to the same behaviour.
    Errors:  CoordinatorUnavailable from every method while nothing can be read or written.
    """

    @property
    def old(self) -> Forgets:
        """What is forgotten of it."""
        ...

    def publish_policy(
        self, *, revision: str, yaml: str, actor: str, at_ns: int, note: str = ""
    ) -> Awaitable[PolicyText]:
        """Publish a policy under the next number, with an audit record; replicas are told."""
        ...

    def current_policy(self) -> Awaitable[PolicyText | None]:
        """Return the newest policy, None before the first."""
        ...

    def read_policy(self, number: int) -> Awaitable[PolicyText | None]:
        """Return one policy, None if there is none of this number."""
        ...

    def policy_history(
        self, *, before_number: int = 0, limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[PolicyText]]:
        """List policies without their text, newest first, from below a number (0: from the top)."""
        ...

    def put_kill(self, kill: KillSwitch) -> Awaitable[int]:
        """Write a kill switch and return the list's new version; replicas are told.

        Ensures: of two states of one switch the later counts, whatever the order they come in.
        """
        ...

    def list_kills(
        self, *, include_released: bool = False
    ) -> Awaitable[tuple[int, list[KillSwitch]]]:
        """Return the list's version with what it held then, newest first."""
        ...

    def lends_from_ns(self) -> Awaitable[int]:
        """Return from when a restored database lends again, in ns; 0 if it never was restored."""
        ...

    def top_up(self, top_up: TopUp) -> Awaitable[bool]:
        """Add to what a counter may reach; False if this id did so already. Audited."""
        ...

    def read_top_up(self, top_up_id: str) -> Awaitable[TopUp | None]:
        """Return what was added under an id, None if nothing was."""
        ...

    def list_top_ups(
        self, counter_key: bytes, *, limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[TopUp]]:
        """List what was added to a counter, newest first."""
        ...

    def tell_drill(self, words: Sequence[DrillWord]) -> Awaitable[bool]:
        """Tell every replica that listens now, in this order; False where they poll instead."""
        ...

    def list_instances(self) -> Awaitable[list[Instance]]:
        """List the replicas that were heard of lately, the oldest first."""
        ...

    def list_daemons(
        self, *, after_id: str = "", limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[Daemon]]:
        """List daemons behind one, in order of their ids."""
        ...

    def list_pools(
        self, *, after_key: bytes = b"", limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[tuple[bytes, Pool]]]:
        """List counters behind one, in order of their keys: windows that end first come first."""
        ...

    def list_shares(
        self,
        *,
        daemon_id: str = "",
        counter_key: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit_count: int = LIMIT_COUNT,
    ) -> Awaitable[list[tuple[bytes, str, Share]]]:
        """List who holds what, of one daemon or one counter if asked, behind (key, daemon)."""
        ...

    def sum_unused(self, tags: Collection[bytes], *, after_ns: int) -> Awaitable[dict[str, int]]:
        """Sum up what each daemon may still use of budgets, in windows that end after then.

        Shape:   by daemon, those that may use something; `tags` are the budgets'.
        Units:   the budgets'; they should have one.
        """
        ...

    def append_audit(self, records: Sequence[AuditRecord]) -> Awaitable[None]:
        """Append audit records."""
        ...

    def list_audit(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[tuple[int, AuditRecord]]]:
        """List audit records with their sequence, newest first."""
        ...

    def list_alerts(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[tuple[int, Alert]]]:
        """List alerts with their sequence, newest first."""
        ...

    def sum_usage(
        self,
        *,
        since_ns: int,
        until_ns: int,
        by: Sequence[str] = (),
        where: Mapping[str, str | int] | None = None,
        limit_count: int = LIMIT_COUNT,
    ) -> Awaitable[list[UsageSum]]:
        """Sum usage by some of DIMENSIONS, the dearest first.

        Shape:   over the whole hours that begin in `[since_ns, until_ns)`.
        Errors:  InvalidAsk for what is no dimension.
        """
        ...

    def list_usage(
        self, *, since_ns: int, until_ns: int, limit_count: int = LIMIT_COUNT
    ) -> Awaitable[list[tuple[str, control_pb2.UsageEvent]]]:
        """List usage events settled in `[since_ns, until_ns)` with their daemon, newest first."""
        ...

    def notices(self) -> AsyncIterator[Notice]:
        """Yield what replicas tell, for ever; ALL first, and whenever some may have been missed."""
        ...


def check_dimensions(names: Iterable[str]) -> Collection[str]:
    """List the names that are no dimension of hourly sums."""
    return sorted(set(names) - set(DIMENSIONS))


def published_audit(policy: PolicyText) -> AuditRecord:
    """Write who published which policy."""
    return AuditRecord(
        at_ns=policy.published_ns,
        actor=policy.actor,
        action="policy_published",
        subject=f"{policy.number} {policy.revision}",
        detail=policy.note,
    )


def top_up_audit(top_up: TopUp) -> AuditRecord:
    """Write who added how much to which counter."""
    return AuditRecord(
        at_ns=top_up.at_ns,
        actor=top_up.actor,
        action="topped_up",
        subject=top_up.counter_key.hex(),
        detail=f"{top_up.amount}: {top_up.reason}" if top_up.reason else str(top_up.amount),
    )
