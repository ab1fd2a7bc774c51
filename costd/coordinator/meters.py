"""What a coordinator lets Prometheus see; docs/operating/metrics.md lists it."""

from collections import Counter
from typing import Final

from costd.coordinator.join import Join
from costd.coordinator.killbook import KillBook
from costd.coordinator.reception import Reception
from costd.coordinator.upkeep import Upkeep
from costd.telemetry.metrics import Metrics

ALERTS: Final = ("threshold", "burn_rate", "kill_engaged", "usage_lost")
"""All of them from the start: Prometheus takes no rise from a series that begins at one."""


def meter_fleet(
    metrics: Metrics,
    reception: Reception,
    join: Join,
    kills: KillBook,
    upkeep: Upkeep,
    *,
    alerts: Counter[str],
) -> None:
    """Observe the fleet as this replica sees it."""
    metrics.gauge(
        "costd_fleet_daemons",
        "Daemons with a stream to this coordinator.",
        lambda: [(len(reception.attached), {})],
    )
    metrics.counter(
        "costd_fleet_messages",
        "Messages of daemons that were acted on.",
        lambda: [(join.messages_count, {})],
    )
    metrics.counter(
        "costd_fleet_transactions",
        "Database transactions those took; messages that wait share one.",
        lambda: [(join.transactions_count, {})],
    )
    metrics.gauge(
        "costd_fleet_policy_number",
        "The published policy in force.",
        lambda: [(reception.published.message.number, {})],
    )
    metrics.gauge(
        "costd_fleet_kills",
        "Kill switches known, engaged or released lately.",
        lambda: [(len(kills.switches), {})],
    )
    metrics.counter(
        "costd_fleet_alerts",
        "Alerts that this coordinator raised since its start.",
        lambda: [(alerts[kind], {"kind": kind}) for kind in ALERTS],
    )
    metrics.gauge(
        "costd_fleet_database_available",
        "1 while the database can be used.",
        lambda: [(int(not upkeep.database_problem), {})],
    )
