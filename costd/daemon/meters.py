"""Which of the daemon's figures are metrics, and what they are called.

docs/operating/metrics.md lists them. Every label has few values: verdicts, reasons, the
policy's task classes, methods, statuses (docs/adr/0022-metrics-bounded.md). Callers are not labels;
there may be millions. What is of money stands in `money_meters`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from costd.daemon import views
from costd.daemon.books.ledger import Ledger
from costd.daemon.books.switches import engaged
from costd.daemon.clients.desk import Desk
from costd.daemon.fleet.fleet import Fleet
from costd.daemon.fleet.policy import FleetPolicy
from costd.daemon.kill_file import KillFile
from costd.daemon.reload import PolicyFile
from costd.daemon.sweeper import Sweeper
from costd.daemon.upkeep import Upkeep
from costd.model.decision import Reason, Verdict
from costd.model.time import NS_PER_S
from costd.telemetry.metrics import Metrics, Readings

ALERTS: Final = (
    *("threshold", "burn_rate", "overrun", "kill_engaged", "grant_redeemed"),
    *("allowance_overdrawn", "page_damaged"),
)
"""All of them from the start: Prometheus takes no rise from a series that begins at one."""
_CLOSINGS: Final = ("settled", "settled_late", "voided", "expired", "recorded")


def meter_ledger(metrics: Metrics, ledger: Ledger) -> None:
    """Observe what was decided and what is held."""

    def decisions() -> Readings:
        return [
            (
                count,
                {
                    "verdict": Verdict(verdict).name.lower(),
                    "task_class": task_class,
                    "reason": Reason(reason).name,
                },
            )
            for (verdict, task_class, reason), count in list(ledger.tally.items())
        ]

    def closings() -> Readings:
        return [(ledger.events.get(name, 0), {"how": name}) for name in _CLOSINGS]

    metrics.counter("costd.decisions", "Asks decided since the start.", decisions)
    metrics.counter("costd.closings", "Reservations and records closed, by how.", closings)
    metrics.counter(
        "costd.overruns",
        "Settlements above their hold.",
        lambda: [(ledger.events.get("overrun", 0), {})],
    )
    metrics.counter(
        "costd.denials_uncounted",
        "Denials that were given but not written to the audit log, because the store failed.",
        lambda: [(ledger.events.get("denials_uncounted", 0), {})],
    )
    for name, description, read in (
        ("reservations_open", "Reservations held now.", lambda: ledger.totals.open_count),
        ("reserved_nusd", "Nano-USD held now.", lambda: ledger.totals.reserved_nusd),
        (
            "exposure_nusd",
            "Nano-USD that open calls may cost beyond their holds, where that is known.",
            lambda: ledger.totals.exposure_nusd,
        ),
        (
            "ceilings_unknown",
            "Open reservations whose highest possible cost is not known.",
            lambda: ledger.totals.unknown_ceiling_count,
        ),
        (
            "kills_engaged",
            "Kill switches engaged now.",
            lambda: engaged(ledger.kills, ledger.clock.now()),
        ),
        ("store_bytes", "Bytes the store occupies.", ledger.store.size_bytes),
    ):
        metrics.gauge(f"costd.{name}", description, _one(read))


def meter_allowances(metrics: Metrics, desk: Desk) -> None:
    """Observe what clients may draw by themselves, and what they report."""

    def undrawn_nusd() -> int:
        out = views.outstanding(desk)
        return out.granted_nusd - out.drawn_nusd

    for name, description, read in (
        (
            "allowances_open",
            "Allowances that are not returned.",
            lambda: views.outstanding(desk).open_count,
        ),
        (
            "allowances_undrawn_nusd",
            "Nano-USD of open allowances that nobody reported drawn.",
            undrawn_nusd,
        ),
        ("sessions_attached", "Client processes with a stream now.", lambda: len(desk.attached)),
    ):
        metrics.gauge(f"costd.{name}", description, _one(read))
    metrics.counter(
        "costd.reports_booked",
        "Reports of client processes booked since the start.",
        _one(lambda: desk.books.booked_count),
    )


def meter_upkeep(metrics: Metrics, upkeep: Upkeep, sweeper: Sweeper) -> None:
    """Observe alerts and how far behind the sweeper is."""
    metrics.counter(
        "costd.alerts",
        "Alerts raised since the start.",
        lambda: [(upkeep.alerts[kind], {"kind": kind}) for kind in ALERTS],
    )
    metrics.gauge(
        "costd.sweep_lag_seconds",
        "How overdue the next expiry is.",
        _one(lambda: sweeper.lag_ns / NS_PER_S),
    )


def meter_kill_files(metrics: Metrics, files: Sequence[KillFile]) -> None:
    """Observe whether what is written in the kill file, if there is one, is in force."""
    metrics.gauge(
        "costd.kill_file_refused",
        "1 while something in the kill file, or all of it, cannot be read.",
        _one(lambda: int(any(file.problem for file in files))),
    )


def meter_policy(metrics: Metrics, file: PolicyFile | FleetPolicy) -> None:
    """Observe which policy is in force and whether the file on disk is it."""
    metrics.gauge(
        "costd.policy_info",
        "1 for the revision in force.",
        lambda: [(1, {"revision": file.policy.revision})],
    )
    metrics.gauge(
        "costd.policy_loaded_timestamp_seconds",
        "When the policy in force was loaded.",
        _one(lambda: file.loaded_ns / NS_PER_S),
    )
    metrics.gauge(
        "costd.policy_refused",
        "1 while the file on disk is not the policy in force, because it is bad.",
        _one(lambda: int(bool(file.error))),
    )
    metrics.counter(
        "costd.policy_reloads",
        "Policies loaded and refused since the start.",
        lambda: [
            (file.loaded_count, {"outcome": "loaded"}),
            (file.refused_count, {"outcome": "refused"}),
        ],
    )


def _one(read: Callable[[], float]) -> Callable[[], Readings]:
    return lambda: [(read(), {})]


def meter_fleet(metrics: Metrics, fleet: Fleet) -> None:
    """Observe a daemon's membership in a fleet."""
    tenancy = fleet.tenancy
    metrics.gauge(
        "costd_fleet_joined",
        "1 while the coordinator listens to this daemon.",
        lambda: [(int(tenancy.is_enrolled), {})],
    )
    metrics.gauge(
        "costd_fleet_outbox_events",
        "Usage events that the coordinator has not stored yet.",
        lambda: [(tenancy.outbox.waiting_count, {})],
    )
    metrics.gauge(
        "costd_fleet_leases",
        "Counters that hold a lease, or use that is not receipted.",
        lambda: [(len(tenancy.ledger.lent.held), {})],
    )
    metrics.gauge(
        "costd_overspend_bound_nusd",
        "How far this daemon may pass its budgets at worst; docs/INVARIANTS.md has the formula.",
        lambda: [(tenancy.overspend_bound_nusd, {})],
    )
